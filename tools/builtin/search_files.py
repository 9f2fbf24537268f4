"""search_files: find words in the files of the conversation."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "search_files",
    "Search the uploaded files for words",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "The words to look for"}},
        "required": ["query"],
    },
)

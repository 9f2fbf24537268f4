"""read_file: the text of a file of the conversation."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "read_file",
    "Read the text of an uploaded file",
    {
        "type": "object",
        "properties": {"name": {"type": "string", "description": "The name of the file"}},
        "required": ["name"],
    },
)

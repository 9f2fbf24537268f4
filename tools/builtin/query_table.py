"""query_table: SQL on an uploaded CSV file."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "query_table",
    "Run an SQL query on an uploaded table",
    {
        "type": "object",
        "properties": {"sql": {"type": "string", "description": "The SELECT statement"}},
        "required": ["sql"],
    },
)

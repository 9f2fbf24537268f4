"""calculator: safe arithmetic."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "calculator",
    "Evaluate an arithmetic expression",
    {
        "type": "object",
        "properties": {
            "expression": {"type": "string", "description": "The expression, e.g. 2 * (3 + 4)"}
        },
        "required": ["expression"],
    },
)

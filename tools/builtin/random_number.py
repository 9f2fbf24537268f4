"""random_number: a whole number between two bounds."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "random_number",
    "Generate a random whole number between two bounds",
    {
        "type": "object",
        "properties": {
            "low": {"type": "integer", "description": "The smallest number allowed"},
            "high": {"type": "integer", "description": "The largest number allowed"},
        },
        "required": ["low", "high"],
    },
)

"""get_time: the clock, anywhere."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "get_time",
    "Get the current date and time in a city or time zone",
    {
        "type": "object",
        "properties": {"place": {"type": "string", "description": "A city or a time zone"}},
        "required": ["place"],
    },
)

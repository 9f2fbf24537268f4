"""get_weather: the weather of a city."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "get_weather",
    "Get the current weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The name of the city"}},
        "required": ["city"],
    },
)

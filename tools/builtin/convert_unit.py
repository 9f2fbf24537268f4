"""convert_unit: length, mass, temperature, volume, speed, area, time, data."""

from glm.messages import ToolSpec

SPEC = ToolSpec(
    "convert_unit",
    "Convert a value from one unit to another",
    {
        "type": "object",
        "properties": {
            "value": {"type": "number", "description": "The value to convert"},
            "from_unit": {"type": "string", "description": "The unit of the value"},
            "to_unit": {"type": "string", "description": "The unit wanted"},
        },
        "required": ["value", "from_unit", "to_unit"],
    },
)

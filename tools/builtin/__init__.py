"""The built-in tools, one file each, in the order the model sees them."""

from glm.messages import ToolSpec
from tools.builtin import (
    calculator,
    convert_unit,
    get_time,
    get_weather,
    query_table,
    random_number,
    read_file,
    search_files,
)

SPECS: tuple[ToolSpec, ...] = (
    get_weather.SPEC,
    calculator.SPEC,
    get_time.SPEC,
    convert_unit.SPEC,
    random_number.SPEC,
    search_files.SPEC,
    read_file.SPEC,
    query_table.SPEC,
)

"""The data formats, one file each, listed here. No torch.

    conversation = read_row({"prompt": "1+1?", "response": "2"})
    row = FORMATS["chatglm3"].write(conversation)

A new format is a file with `name`, `looks_like`, `read` and `write`, a line in FORMATS and a row
in tests/test_formats.py. The order is the order of asking: the first that knows a row reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats import (
    advertise_gen,
    alpaca,
    alpaca_sft,
    chatglm3,
    chosen_rejected,
    context_target,
    firefly,
    glm4,
    metalwoz,
    openai,
    prompt_response,
    sharegpt,
    toolalpaca,
)
from finetune.formats.base import BadRow, CannotHold, Format
from finetune.formats.loss import losses
from glm.messages import Conversation

AUTO = "auto"
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        chosen_rejected,
        toolalpaca,
        sharegpt,
        chatglm3,
        glm4,
        openai,
        firefly,
        metalwoz,
        alpaca,
        alpaca_sft,
        context_target,
        advertise_gen,
        prompt_response,
    )
}
# keys that make a format with another; the first that is missing is named
HALVES = (
    *("rejected", "chosen", "output", "instruction", "response", "prompt"),
    *("target", "context", "summary", "content"),
)


def recognise(row: Mapping[str, Any]) -> str:
    """The name of the format of a row. Raises BadRow."""
    for name, format in FORMATS.items():
        if format.looks_like(row):
            return name
    keys = ", ".join(str(key) for key in list(row)[:8]) or "none"
    raise BadRow(f"no known format has these keys: {keys}; {_missing(row)}")


def _missing(row: Mapping[str, Any]) -> str:
    """The one key that would make the row a format's, else the formats."""
    for key in HALVES:
        for name, format in FORMATS.items():
            if key not in row and format.looks_like({**row, key: None}):
                return f'{name} needs "{key}" beside them'
    return f"known: {', '.join(FORMATS)}"


def read_row(row: Mapping[str, Any], name: str = AUTO) -> Conversation:
    """The conversation of a row, in the named format or in the one it looks like."""
    if not isinstance(row, Mapping):
        raise BadRow(f"a row is an object, not {type(row).__name__}")
    return named(recognise(row) if name == AUTO else name).read(row)


def named(name: str) -> Format:
    """The format of a name. Raises BadRow, listing them."""
    if name not in FORMATS:
        raise BadRow(f"no format '{name}'; known: {', '.join(FORMATS)}")
    return FORMATS[name]


__all__ = [
    "AUTO",
    "FORMATS",
    "BadRow",
    "CannotHold",
    "Format",
    "losses",
    "named",
    "read_row",
    "recognise",
]

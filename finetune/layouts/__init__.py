"""The mask layouts, one file each, listed here: tokens of a row, which are learnt. No torch.

    layout = choose("auto", dialect)
    made = layout.encode(conversation, dialect, Limits(max_length=2048))    # Example or Skipped

The special tokens come from the dialect; a new layout is a file with a LAYOUT, a line in LAYOUTS
and a row in tests/test_layouts.py.
"""

from __future__ import annotations

from finetune.layouts import alpaca_sft, chatglm1, chatglm3, eos_per_turn, own, prompt_response
from finetune.layouts.example import NOT_LEARNT, Example, Layout, Limits, Skipped
from glm.dialects.base import Dialect
from glm.errors import BadRequest

AUTO = "auto"
_NAMED: tuple[Layout, ...] = (
    chatglm3.LAYOUT,
    eos_per_turn.LAYOUT,
    alpaca_sft.LAYOUT,
    prompt_response.LAYOUT,
    chatglm1.LAYOUT,
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _NAMED}
_OF_A_FAMILY: dict[str, Layout] = {"chatglm3": chatglm3.LAYOUT, "chatglm": chatglm1.LAYOUT}


def choose(name: str, dialect: Dialect) -> Layout:
    """The layout of a name; `auto` is the one the family was trained in.

    Raises BadRequest, naming the layouts that the dialect can be written in.
    """
    if name == AUTO:
        return _OF_A_FAMILY.get(dialect.name, own.LAYOUT)
    layout = LAYOUTS.get(name)
    if layout is not None and _fits(layout, dialect):
        return layout
    problem = f"the layout {name} is not for this model" if layout else f"no layout '{name}'"
    allowed = [AUTO, *(known for known, it in LAYOUTS.items() if _fits(it, dialect))]
    raise BadRequest(f"{problem} ({dialect.name}); choose one of {', '.join(allowed)}")


def _fits(layout: Layout, dialect: Dialect) -> bool:
    return not layout.dialects or dialect.name in layout.dialects


__all__ = [
    "AUTO",
    "LAYOUTS",
    "NOT_LEARNT",
    "Example",
    "Layout",
    "Limits",
    "Skipped",
    "choose",
]

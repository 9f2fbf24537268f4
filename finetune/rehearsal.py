"""What the embedded model learnt when it was made, to be mixed into what it learns now.

Its dialogues come from a generator (finetune/pretrain), so each is made when it is asked for: row
n is always the same, and no file of them ships. A small model forgets at once what it is not
shown, and of a few rows shown again and again it keeps those rows only. For other models nobody
has what they were made from. What the forgetting probe asks is never among the rows. No torch.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from finetune.pretrain.dialogues import Pack, Writer
from finetune.pretrain.frozen import normal
from glm.messages import Conversation, Message

ROWS = 1 << 16
PROBE = Path(__file__).parent.parent / "assets" / "probe.jsonl"
# kind of dialogue -> how often; how many in one row. Tools are long, and read once for all
KINDS = {"builtin": 0.2, "some": 0.1, "chat": 0.7}
TOGETHER = {"builtin": 4, "some": 2, "chat": 1}


class Rehearsal:
    """The dialogues as rows."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int, /) -> Conversation:
        if index >= ROWS:
            raise IndexError(index)
        source = random.Random(f"rehearsal {index}")
        while True:
            made = _made(source)
            if not any(m.role == "user" and normal(m.content) in _asked() for m in made.messages):
                return made


def _made(source: random.Random) -> Conversation:
    (kind,) = source.choices(list(KINDS), list(KINDS.values()))
    pack: Pack = getattr(Writer(source), kind)(TOGETHER[kind])
    system = (Message("system", pack.system),) if pack.system else ()
    turns = (turn for dialogue in pack.dialogues for turn in dialogue)
    return Conversation((*system, *turns), pack.tools)


@cache
def _asked() -> frozenset[str]:
    """What the probe asks."""
    lines = PROBE.read_text(encoding="utf-8").splitlines()
    return frozenset(normal(json.loads(line)["user"]) for line in lines)

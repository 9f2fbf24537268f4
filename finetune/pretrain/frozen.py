"""The frozen scoring set: 500 dialogues written by hand that training must never see.

`rows()` reads them; `frozen_texts()` gives their user sentences in a normal form, so that the
generator can refuse to make the same sentence. No torch. It does not judge a model: see score.py.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("frozen.jsonl")


def rows(path: Path = FILE) -> list[dict[str, Any]]:
    """The rows of the set in file order; [] while the file does not exist."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def normal(text: str) -> str:
    """Letters and digits in lower case with single spaces: what makes two sentences the same."""
    kept = (letter if letter.isalnum() else " " for letter in text.casefold())
    return " ".join("".join(kept).split())


@cache
def frozen_texts() -> frozenset[str]:
    """Every user sentence of the set, through `normal`."""
    found: set[str] = set()
    for row in rows():
        turns = [m["content"] for m in row.get("history", ()) if m["role"] == "user"]
        found.update(normal(text) for text in (*turns, row["user"]))
    return frozenset(found)

"""AdvertiseGen: `content` (what to advertise) and `summary` (the advertisement)."""

from __future__ import annotations

from finetune.formats.pair import Pair

name = "advertise-gen"
_PAIR = Pair(("content",), ("summary",))
looks_like, read, write = _PAIR.looks_like, _PAIR.read, _PAIR.write

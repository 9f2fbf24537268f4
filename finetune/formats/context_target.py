"""`context` and `target`: ChatGLM-6B's tuning, the base-model demo, the annotation page."""

from __future__ import annotations

from finetune.formats.pair import Pair

name = "context-target"
_PAIR = Pair(("context",), ("target",))
looks_like, read, write = _PAIR.looks_like, _PAIR.read, _PAIR.write

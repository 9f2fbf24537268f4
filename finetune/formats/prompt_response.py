"""`prompt` and `response`: the official demo's input-output format, with `history` (ChatGLM2)."""

from __future__ import annotations

from finetune.formats.pair import Pair

name = "prompt-response"
_PAIR = Pair(("prompt", "query", "question"), ("response", "answer", "completion"))
looks_like, read, write = _PAIR.looks_like, _PAIR.read, _PAIR.write

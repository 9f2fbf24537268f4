"""Where the reference answers and real tokenizers lie, when they lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
GOLDEN = SHARED / "golden"
CHATGLM3_TOKENIZER = SHARED / "tokenizers" / "chatglm3-6b" / "tokenizer.model"
ICE_TEXT = SHARED / "tokenizers" / "chatglm-6b" / "ice_text.model"
TINY = ROOT / "assets" / "tiny"


def golden_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a golden token file; none when it is not here."""
    file = GOLDEN / "tokens" / name
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def tokenizer_file() -> Path:
    """The real ChatGLM3 tokenizer when it is here, else the embedded model's."""
    return CHATGLM3_TOKENIZER if CHATGLM3_TOKENIZER.exists() else TINY / "tokenizer.model"

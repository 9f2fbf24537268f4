"""Make ChatGLM3 rows of ToolAlpaca's train_data.json, as the early official demo did.

    python finetune/format_tool_alpaca.py --path train_data.json

Writes ./formatted_data/tool_alpaca.jsonl. Instances that cannot be read are counted and named
with their place and the reason.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started as a file: the program's folder, not this one, holds finetune
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from finetune.convert import Conversion
from finetune.formats import chatglm3, toolalpaca
from finetune.formatting import main

OUT = "tool_alpaca.jsonl"


def turns(row: dict[str, Any]) -> int:
    return len(row["conversations"])


if __name__ == "__main__":
    sys.exit(main(__doc__, OUT, Conversion(chatglm3.name, toolalpaca.name), turns))

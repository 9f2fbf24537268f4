"""Make prompt and response rows of AdvertiseGen's train.json, as the early official demo did.

    python finetune/format_advertise_gen.py --path train.json

Writes ./formatted_data/advertise_gen.jsonl. Rows that cannot be read are counted and named with
their place and the reason.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: the program's folder, not this one, holds finetune
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from finetune.convert import Conversion
from finetune.formats import advertise_gen, prompt_response
from finetune.formatting import main

OUT = "advertise_gen.jsonl"

if __name__ == "__main__":
    sys.exit(main(__doc__, OUT, Conversion(prompt_response.name, advertise_gen.name)))

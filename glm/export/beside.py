"""The small files beside the weights: configs, tokenizer, and a note for who reads the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from glm.export.source import Source

TOKENIZER = ("tokenizer.model", "ice_text.model")
_NOT_PASSED_ON = {"auto_map", "tokenizer_class", "chat_template"}


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file; {} when there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def copy_tokenizer(source: Source, folder: Path) -> None:
    """The tokenizer's own file, under its usual name."""
    file = source.info.tokenizer
    name = file.name if file.name in TOKENIZER or file.suffix == ".json" else TOKENIZER[0]
    shutil.copyfile(file, folder / name)


def tokenizer_config(source: Source) -> dict[str, Any]:
    """The original tokenizer_config.json without what would run or name code."""
    found = read_json(source.info.tokenizer.parent / "tokenizer_config.json")
    return {key: value for key, value in found.items() if key not in _NOT_PASSED_ON}


def generation_config(source: Source, stop: tuple[int, ...]) -> dict[str, Any]:
    """The source's, with all ids that end a turn (the original files name eos alone)."""
    found = read_json(source.info.path / "generation_config.json")
    pad = source.info.config.get("pad_token_id", 0)
    out = {"pad_token_id": pad, **found, "eos_token_id": list(stop)}
    return {key: value for key, value in out.items() if key != "transformers_version"}


def origin(source: Source) -> str:
    """A sentence on what the folder was made of."""
    made = f"Written from {source.info.name} ({source.info.family}) by GLM Workbench"
    if source.adapter is None:
        return f"{made}."
    about = source.adapter.info
    return f"{made}, with the {about.kind} adapter {about.name} merged into the weights."

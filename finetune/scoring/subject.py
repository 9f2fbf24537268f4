"""What is to be scored: a training run, or a model with an adapter or without. No torch.

A run is a folder with a config.yaml. Of a finished one its result counts (`adapter/`, `model/`),
of one that was cut off its newest complete checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from glm.checkpoint.recognise import EMBEDDED
from glm.errors import BadRequest

CONFIG, COMPLETE = "config.yaml", "complete.json"
WHOLE = ("full", "freeze")  # methods whose result is a model; others have a config.json, too
RAW_LAYOUTS = ("prompt-response", "chatglm1")
_STEP = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Subject:
    """`model` is a folder or hub id; `layout` the mask layout that a run was trained in, "auto"
    where it is not known; `run` the run's folder. `base` is what `model` was before a run that
    changed all of it."""

    model: str
    tokenizer: str = ""
    adapter: Path | None = None
    layout: str = "auto"
    bits: int | None = None
    run: Path | None = None
    base: str = ""

    def of_base(self) -> Subject:
        """The model before the run."""
        return replace(self, model=self.base or self.model, adapter=None, layout="auto", base="")


def subject(target: str, adapter: str | None = None) -> Subject:
    """The model and the adapter that a RUN or MODEL means. Raises BadRequest."""
    folder = Path(target).expanduser()
    chosen = Path(adapter).expanduser() if adapter else None
    if (folder / CONFIG).is_file():
        return _of_run(folder, chosen)
    if (folder / "adapter_config.json").is_file():
        raise BadRequest(f"{folder} is an adapter; name its base, and --adapter {folder}")
    return Subject(target or str(EMBEDDED), adapter=chosen)


def _of_run(folder: Path, adapter: Path | None) -> Subject:
    config = _config(folder / CONFIG)
    base = str(config.get("model") or EMBEDDED)
    tokenizer = str(config.get("tokenizer") or "")
    layout = str(config.get("layout") or "auto")
    result = adapter or _result(folder)
    if config.get("method") in WHOLE:  # all weights, beside which lies no tokenizer
        return Subject(str(result), tokenizer or base, None, layout, None, folder, base)
    bits = config.get("quantization_bit") or None
    return Subject(base, tokenizer, result, layout, bits, folder)


def _result(folder: Path) -> Path:
    for place in (folder / "adapter", folder / "model"):
        if place.is_dir():
            return place
    steps = [
        (int(found[1]), path)
        for path in folder.glob("checkpoints/checkpoint-*")
        if (found := _STEP.fullmatch(path.name)) and (path / COMPLETE).is_file()
    ]
    if not steps:
        raise BadRequest(f"nothing has been saved in {folder} yet; train to the first checkpoint")
    return max(steps)[1]


def _config(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadRequest(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"{file} holds no options")
    return found

"""How a model is opened: with what wishes, by which engine, and what is asked of it afterwards.

Light to import: torch comes when a model is opened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glm.checkpoint.recognise import ModelInfo
from glm.dialects import Dialect
from glm.engines.base import Engine
from glm.messages import Sampling

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a model is opened. `bits` 8 or 4 quantises it; `tokenizer` is another folder or file."""

    device: str = "auto"
    dtype: str = "auto"
    bits: int | None = None
    tokenizer: str | Path | None = None


AS_IS = Opening()  # all by what is there
Opener = Callable[[ModelInfo, Opening], Engine]


def open_engine(info: ModelInfo, how: Opening) -> Engine:
    """Load the weights and start the worker. Brings torch."""
    from glm.engines.local import LocalEngine
    from glm.load import load_model

    return LocalEngine(load_model(info, how.device, how.dtype, how.bits), context=info.context)


def quantisation(engine: Engine, info: ModelInfo, dialect: Dialect) -> Any:
    """The error of a model that was just quantised; None for an engine that has no model here."""
    model = getattr(engine, "model", None)
    if model is None:
        return None
    from glm.quantisation.error import SAMPLE, measure

    try:
        return measure(model, info, dialect.prompt(SAMPLE))
    except Exception:  # a model answers without a figure; an odd checkpoint must not stop that
        log.exception("what quantising has cost could not be measured")
        return None


def family_defaults(info: ModelInfo, dialect: Dialect) -> Sampling:
    """The dialect's defaults, changed by the checkpoint's generation_config.json."""
    file = info.path / "generation_config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    limit = min(dialect.defaults.max_tokens, max(1, info.context // 2))
    changes: dict[str, Any] = {"max_tokens": limit}
    for key in ("temperature", "top_p", "top_k", "repetition_penalty"):
        if isinstance(config.get(key), int | float):
            changes[key] = config[key]
    if config.get("do_sample") is False:
        changes["temperature"] = 0.0
    return replace(dialect.defaults, **changes)

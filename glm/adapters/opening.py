"""Open an adapter for a loaded model: any layout in, native names and plain values out.

    adapter = open_adapter(folder, info, model.config)

No PEFT, no model: a LoRA of the embedded model opens in milliseconds. Not covered: adapters that
are more than low-rank parts of linear layers or a prefix; they are refused by the key at fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from glm.adapters import lora, prefix, tensors
from glm.adapters.card import (
    Card,
    base_fingerprint,
    mismatches,
    read_card,
    remember_alpha,
    remembered_alpha,
)
from glm.adapters.sizes import Sizes
from glm.adapters.sources import CHECKPOINT, KNOWN, OPENED, PREFIX, PTUNING, Source, find
from glm.adapters.values import Adapter, AdapterInfo
from glm.checkpoint.recognise import ModelInfo
from glm.errors import AlphaNeeded, CheckpointError

GENERIC = {"adapter", "final", "model_best"}  # folder names that do not tell adapters apart


def describe(path: str | Path) -> AdapterInfo:
    """What an adapter is, without reading its numbers and without a model.

    Raises CheckpointError for a file that is damaged, holds code or is no adapter.
    """
    source = find(path)
    return _info(source, tensors.shapes(source), read_card(source.weights[0]))


def open_adapter(
    path: str | Path,
    info: ModelInfo,
    config: Any,
    alpha: float | None = None,
    memory: Path | None = None,
) -> Adapter:
    """The adapter for the model of `info`, whose native config is `config`.

    `alpha` is for bare files, which lack it: AlphaNeeded is raised without one, and one given is
    kept beside the file, or in the JSON file `memory` where nothing can be written there.
    Raises CheckpointError naming the file, the key, and both numbers where sizes differ. Another
    base or dialect of the same sizes is a sentence in `Adapter.info.warnings`.
    """
    source = find(path)
    if source.kind not in OPENED:
        raise CheckpointError(
            f"{source.path}: {source.kind} adapters cannot be opened; known are {', '.join(OPENED)}"
        )
    card = read_card(source.weights[0])
    read = tensors.read(source)
    shapes = {name: tuple(tensor.shape) for name, tensor in read.items()}
    found = replace(_info(source, shapes, card), warnings=_warnings(source, card, info))
    with _named(found, source, info):
        if source.kind == PTUNING:
            return Adapter(found, prefix=prefix.official(read, Sizes.of(config)))
        if source.kind == PREFIX:
            return Adapter(found, prefix=prefix.peft(read, config, source.settings))
        modules = lora.grouped(read)
        strength = _strength(source, lora.rank_of(shapes) or 0, alpha, memory)
        enabled = source.settings.get("enable_lora")
        parts = lora.parts(modules, Sizes.of(config), strength, enabled)
    if alpha is not None and not source.settings:
        found = _remembered(found, source, alpha, memory)
    return Adapter(found, parts)


def _strength(source: Source, rank: int, alpha: float | None, memory: Path | None) -> lora.Scaling:
    if source.settings:
        return lora.scaling(source.settings)
    file = source.weights[0]
    if alpha is None:
        alpha = remembered_alpha(file, memory)
    if alpha is None:
        raise AlphaNeeded(str(file), rank)
    if not math.isfinite(alpha) or alpha <= 0:
        raise CheckpointError(f"alpha is {alpha}; it must be a number above 0, usually 16 or 32")
    return lora.Scaling(alpha)


def _remembered(
    found: AdapterInfo, source: Source, alpha: float, memory: Path | None
) -> AdapterInfo:
    file = source.weights[0]
    if remembered_alpha(file, memory) == alpha or remember_alpha(file, alpha, memory):
        return found
    warning = f"alpha {alpha:g} could not be kept beside {file}: it is read-only"
    return replace(found, warnings=(*found.warnings, warning))


@contextmanager
def _named(found: AdapterInfo, source: Source, info: ModelInfo) -> Iterator[None]:
    """Sentences about what is inside get the file's name, and both models'."""
    try:
        yield
    except AlphaNeeded:
        raise
    except CheckpointError as error:
        made = f" (made for {found.base})" if found.base else ""
        raise CheckpointError(
            f"{source.weights[0]}{made} cannot be opened on {info.name}: {error}"
        ) from error


def _info(source: Source, shapes: dict[str, tuple[int, ...]], card: Card) -> AdapterInfo:
    is_prefix = source.kind in (PREFIX, PTUNING)
    tables = (shape for name, shape in shapes.items() if "embedding" in name)
    return AdapterInfo(
        name=_name(source),
        path=source.path,
        kind=source.kind,
        rank=None if is_prefix else lora.rank_of(shapes),
        tokens=next((shape[0] for shape in tables if shape), None) if is_prefix else None,
        base=_base(source, card),
        base_hash=card.base_hash,
        dialect=card.dialect,
        layout=card.layout,
        data_hash=card.data_hash,
        run=card.run,
        reason=source.reason,
        bytes=sum(file.stat().st_size for file in source.weights),
    )


def _base(source: Source, card: Card) -> str:
    """The model it was made for, by the first file that says it."""
    for said in (
        card.base,
        source.settings.get("base_model_name_or_path"),
        source.origin.get("_name_or_path"),
    ):
        if said and isinstance(said, str):
            return said
    return ""


def _warnings(source: Source, card: Card, info: ModelInfo) -> tuple[str, ...]:
    made = replace(card, base=_base(source, card))
    mark = base_fingerprint(info) if made.base_hash else ""
    # A copy in a folder of another name, or in the hub's cache, still says which model it is.
    aliases = (info.name, str(info.config.get("_name_or_path") or ""), str(info.path.resolve()))
    found = (
        mismatches(made, Card(base=alias, base_hash=mark, dialect=info.dialect))
        for alias in aliases
        if alias
    )
    return min(found, key=len)


def _name(source: Source) -> str:
    """The folder's name, or a bare file's; one that says nothing gets its parent's in front."""
    path = source.path.resolve()
    if path.is_file() and path.name not in KNOWN:
        return path.stem
    folder = path.parent if path.is_file() else path
    plain = folder.name in GENERIC or CHECKPOINT.fullmatch(folder.name)
    return f"{folder.parent.name}-{folder.name}" if plain else folder.name

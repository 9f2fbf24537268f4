"""The adapter alone as a PEFT folder, on the names of the native Glm model."""

from __future__ import annotations

from pathlib import Path

import torch

from glm.adapters.values import Adapter, LoraPart
from glm.errors import CheckpointError
from glm.export.source import Source, model_config
from glm.export.values import Progress, Verdict

# Prefix keys are rotated on their way to PEFT and back, in fp32.
ROTATION = 1e-4


def write(source: Source, folder: Path, progress: Progress) -> None:
    """Write adapter_config.json and adapter_model.safetensors."""
    from glm.adapters.saving import save_peft_lora, save_peft_prefix

    adapter = opened(source)
    if adapter.prefix is not None:
        save_peft_prefix(adapter, model_config(source.info), folder)
    else:
        save_peft_lora(adapter, folder, source.info.name)
    keep_card(adapter, folder)


def check(source: Source, folder: Path, progress: Progress) -> Verdict:
    """Open the folder as an adapter and compare every part."""
    return reopened(source, folder)


def opened(source: Source) -> Adapter:
    """The adapter of a source that must have one."""
    if source.adapter is None:
        raise CheckpointError("there is no adapter to write")
    return source.adapter


def keep_card(adapter: Adapter, folder: Path) -> None:
    """Pass on what is known of where the adapter comes from."""
    from glm.adapters.card import Card, write_card

    info = adapter.info
    known = Card(info.base, info.base_hash, info.dialect, info.layout, info.data_hash, info.run)
    if known != Card():
        write_card(folder, known)


def reopened(source: Source, path: Path) -> Verdict:
    """Compare a written adapter with the source's. Raises CheckpointError when it differs."""
    from glm.adapters.opening import open_adapter

    ours = opened(source)
    theirs = open_adapter(path, source.info, model_config(source.info), None)
    if set(ours.lora) != set(theirs.lora) or (ours.prefix is None) != (theirs.prefix is None):
        raise CheckpointError("the written adapter changes other modules; nothing was kept")
    for name, part in ours.lora.items():
        if not _same_update(part, theirs.lora[name]):
            raise CheckpointError(f"{name} was not written as it is; nothing was kept")
    count = sum(2 + (part.magnitude is not None) for part in ours.lora.values())
    if ours.prefix is not None and theirs.prefix is not None:
        pairs = ((ours.prefix.keys, theirs.prefix.keys), (ours.prefix.values, theirs.prefix.values))
        for left, right in pairs:
            if left.shape != right.shape or not torch.allclose(
                left.float(), right.float(), rtol=ROTATION, atol=ROTATION
            ):
                raise CheckpointError("the prefix was not written as it is; nothing was kept")
        count += 2
    return Verdict(count, "as stored")


def _same_update(ours: LoraPart, theirs: LoraPart) -> bool:
    """Do both add the same? The scale may stand in another place."""
    if ours.a.shape != theirs.a.shape or ours.b.shape != theirs.b.shape:
        return False
    if (ours.magnitude is None) != (theirs.magnitude is None):
        return False
    if ours.magnitude is not None and not torch.equal(ours.magnitude, theirs.magnitude):
        return False
    exact = torch.equal(ours.a, theirs.a) and torch.equal(ours.b, theirs.b)
    return exact and abs(ours.scale - theirs.scale) <= 1e-6 * abs(ours.scale)

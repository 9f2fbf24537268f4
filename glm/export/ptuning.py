"""The adapter alone as the official P-Tuning v2 file: the weights of its prefix_encoder."""

from __future__ import annotations

from pathlib import Path

from glm.errors import CheckpointError
from glm.export import beside, peft
from glm.export.source import Source
from glm.export.values import Progress, Verdict

FILE = "pytorch_model.bin"


def write(source: Source, folder: Path, progress: Progress) -> None:
    """Write pytorch_model.bin and a config.json that says pre_seq_len, as the official script."""
    from glm.adapters.saving import save_official_prefix

    adapter = peft.opened(source)
    if adapter.prefix is None or adapter.lora:
        raise CheckpointError(f"{adapter.info.name} is no prefix; export it as peft")
    save_official_prefix(adapter, folder / FILE)
    config = {key: value for key, value in source.info.config.items() if key != "auto_map"}
    config |= {"pre_seq_len": adapter.prefix.tokens, "prefix_projection": False}
    beside.write_json(folder / "config.json", config)
    peft.keep_card(adapter, folder)


def check(source: Source, folder: Path, progress: Progress) -> Verdict:
    """Open the folder as an adapter and compare the prefix."""
    return peft.reopened(source, folder)

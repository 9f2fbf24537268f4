"""The original layout of the ChatGLM hub repositories: their config keys, names and fused weights.

Written so that the official code, too, reads it when its own Python files are put beside it;
they are not part of the export, nor is auto_map, which would run them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from glm.errors import CheckpointError
from glm.export import beside, compare
from glm.export.layout import native_names, original_config
from glm.export.source import Source
from glm.export.tensors import Planned, write_shards
from glm.export.values import Progress, Verdict


def write(source: Source, folder: Path, progress: Progress) -> None:
    """Write the folder. Raises CheckpointError for models that never had this layout."""
    total = source.bytes()
    write_shards(list(plan(source)), folder, compare.bar(progress, "writing", total))
    config = source.info.config
    if source.glm:
        config = original_config(config)
    kinds = {source.stored(name) for name in source.names}
    dtype = str(kinds.pop()).removeprefix("torch.") if len(kinds) == 1 else None
    config = {key: value for key, value in config.items() if key != "auto_map"}
    config["torch_dtype"] = dtype or config.get("torch_dtype")
    config["_name_or_path"] = _name(source)
    beside.write_json(folder / "config.json", config)
    beside.copy_tokenizer(source, folder)
    kept = beside.read_json(source.info.tokenizer.parent / "tokenizer_config.json")
    kept.pop("auto_map", None)
    beside.write_json(folder / "tokenizer_config.json", kept)
    found = beside.read_json(source.info.path / "generation_config.json")
    if found:
        beside.write_json(folder / "generation_config.json", found)
    note = f"# {source.info.name}\n\n{beside.origin(source)} Layout: the original one of the hub.\n"
    (folder / "README.md").write_text(note, encoding="utf-8")


def check(source: Source, folder: Path, progress: Progress) -> Verdict:
    """Read it again: every tensor, and the logits of the model it opens as."""
    return compare.folder(source, folder, list(plan(source)), progress)


def plan(source: Source) -> Iterator[Planned]:
    """The tensors under their original names; q, k and v in one."""
    if source.info.arch == "chatglm1":
        yield from (source.planned(name) for name in source.names)
        return
    if not source.glm:
        kind = source.info.config.get("model_type")
        raise CheckpointError(f"{source.info.name} ({kind}) never had the original ChatGLM layout")
    parts: dict[str, list[str]] = {}
    for name, rows in native_names(source.config):
        parts.setdefault(rows.name, []).append(name)
    for written, names in parts.items():
        yield _joined(source, written, names)


def _name(source: Source) -> str:
    """A name that tells ChatGLM2 from 3, which nothing else in the layout does."""
    name = str(source.info.config.get("_name_or_path") or source.info.name)
    second = source.info.dialect == "chatglm2" and "chatglm2" not in name.lower()
    return f"chatglm2-{name}" if second else name


def _joined(source: Source, written: str, names: list[str]) -> Planned:
    if len(names) == 1:
        return source.planned(names[0], written)
    shapes = [source.shape(name) for name in names]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    dtype = source.stored(names[0])
    return Planned(
        written, shape, dtype, lambda: torch.cat([source.tensor(name) for name in names])
    )

"""What can be opened or added: a folder, a file or a hub id, looked at before anything is loaded.

The one place where the page meets the parts of glm/ that look at files. What brings torch is
imported when it is first asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import glm.export
from demo import models
from demo.text import Refused
from glm.adapters.sources import looks_like_adapter
from glm.adapters.values import AdapterInfo
from glm.checkpoint import modelscope
from glm.checkpoint.hub import cached_models, find_folders, is_hub_id
from glm.checkpoint.recognise import EMBEDDED, ModelInfo, recognise
from glm.errors import CheckpointError, GlmError
from glm.inspect import inspect

Kind = Literal["model", "adapter", "hub", "nothing"]
Progress = Callable[[str, float | None], None]
BUILT_IN = "built-in"  # opens the embedded model
MOST = 200  # things that are shown below one folder
TARGETS = ("hub", "native", "peft", "ptuning", "gguf")
ADAPTER_TARGETS = ("peft", "ptuning")  # these write an adapter alone


@dataclass(frozen=True, slots=True)
class Find:
    """`at` is what opens or adds it. `why` says why it was recognised, or what is wrong with it;
    "hub" is a model that would be downloaded. `bytes` are those of its files."""

    at: str
    kind: Kind
    name: str
    why: str = ""
    info: ModelInfo | None = None
    adapter: AdapterInfo | None = None
    parameters: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """A heading and what is below it; `folder` is one that can be taken off the list."""

    title: str
    finds: Sequence[Find]
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Exporting:
    """What is to be written: the model, its adapter or none, into a new folder."""

    model: Path
    folder: Path
    target: str
    adapter: Path | None = None
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what came of reading it again."""

    folder: Path
    bytes: int
    verdict: str
    notes: tuple[str, ...] = ()


def look(at: str) -> Find:
    """What stands at a path or hub id. Never raises for what it finds there."""
    at = at.strip()
    if at == BUILT_IN:
        return built_in()
    if is_hub_id(at):
        here = dict(cached()).get(at)
        return replace(_look_in(here), at=at, name=at) if here else _on_hub(at)
    return _look_in(Path(at).expanduser())


def _look_in(path: Path) -> Find:
    at = str(path)
    if looks_like_adapter(path):
        return _adapter(path)
    try:
        info = recognise(path)
    except CheckpointError as error:
        return Find(at, "nothing", path.name, str(error))
    size = _size(info.weights)
    return Find(at, "model", info.name, info.reason, info, None, info.parameters, size)


def _adapter(path: Path) -> Find:
    try:
        known = describe(path)
    except GlmError as error:
        return Find(str(path), "nothing", path.name, str(error))
    return Find(str(path), "adapter", path.name, known.reason, None, known, 0, known.bytes)


def _on_hub(at: str) -> Find:
    """A model that is not on this machine; the size where it is one of ours."""
    row = next((row for row in models.rows() if row["id"] == at), None)
    billions = float(row["size"].split()[0]) if row else 0.0
    return Find(at, "hub", at, parameters=int(billions * 1e9), bytes=int(billions * 2e9))


def below(folder: Path) -> list[Find]:
    """Models and adapters in a folder and below it. Raises Refused."""
    if not folder.is_dir():
        raise Refused("models.no_folder", path=folder)
    return [_look_in(path) for path in find_folders(folder)[:MOST]]


def built_in() -> Find:
    """The embedded model."""
    return replace(_look_in(EMBEDDED), at=BUILT_IN)


def cached() -> list[tuple[str, Path]]:
    """Hub models whose files are on this machine."""
    return cached_models()


def describe(path: Path) -> AdapterInfo:
    """What an adapter's files say. Raises GlmError."""
    from glm.adapters.opening import describe

    return describe(path)


def report(path: str) -> str:
    """All that `python -m glm.inspect` says about a path."""
    return str(inspect(path))


def why_not(bits: int | None, info: ModelInfo | None) -> str:
    """Why a model cannot be opened in so many bits, in a sentence; "" where it can."""
    if bits is None:
        return ""
    from glm.quantisation.quantise import can_quantise

    return (can_quantise(info.config, bits) if info else None) or ""


def devices() -> list[str]:
    """Where a model may go, as far as this process knows without waking torch."""
    torch = sys.modules.get("torch")
    cards = torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0
    return ["auto", *(f"cuda:{number}" for number in range(cards)), "cpu"]


def hub() -> tuple[str, bool]:
    """(the hub's address, whether it may be asked), from the environment."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if modelscope.asked_for():
        return modelscope.endpoint(), not offline
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co", not offline


def export(wanted: Exporting, progress: Progress) -> Exported:
    """Write a model or an adapter for another program. Raises GlmError."""
    done = glm.export.export(
        glm.export.Wanted(
            model=wanted.model,
            folder=wanted.folder,
            to=wanted.target,
            adapter=wanted.adapter,
            alpha=wanted.alpha,
        ),
        progress,
    )
    return Exported(done.folder, done.bytes, str(done.verdict), tuple(done.verdict.notes))


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())

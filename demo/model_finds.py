"""What can be opened or added: a folder, a file or a hub id, looked at before anything is loaded.

The one place where the page meets the parts of glm/ that look at files. Each is imported when it
is first asked; where one is missing, what it would have said is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from demo import models
from demo.text import Refused
from glm.adapters.values import AdapterInfo
from glm.errors import CheckpointError, GlmError
from glm.hub import is_hub_id
from glm.recognise import EMBEDDED, ModelInfo, recognise

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
    reason = adapter_reason(path)
    if reason:
        return _adapter(path, reason)
    try:
        info = recognise(path)
    except CheckpointError as error:
        return Find(at, "nothing", path.name, str(error))
    size = _size(info.weights)
    return Find(at, "model", info.name, info.reason, info, None, info.parameters, size)


def _adapter(path: Path, reason: str) -> Find:
    try:
        known = describe(path)
    except GlmError as error:
        return Find(str(path), "nothing", path.name, str(error))
    if known is None:
        return Find(str(path), "adapter", path.name, reason)
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
    search = _part("glm.hub", "find_folders") or _children
    return [_look_in(Path(path)) for path in list(search(folder))[:MOST]]


def _children(folder: Path) -> Iterable[Path]:
    """The folder and what is directly in it."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        inside = []
    for path in (folder, *inside):
        if any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            yield path


def built_in() -> Find:
    """The embedded model."""
    return replace(_look_in(EMBEDDED), at=BUILT_IN)


def cached() -> list[tuple[str, Path]]:
    """Hub models whose files are on this machine."""
    found = _part("glm.hub", "cached_models")
    return [(str(id), Path(path)) for id, path in found()] if found else []


def adapter_reason(path: Path) -> str | None:
    """Why something is an adapter and no model; None where it is not."""
    tells = _part("glm.adapters", "looks_like_adapter")
    if tells:
        found: str | None = tells(path)
        return found
    return "adapter_config.json" if (path / "adapter_config.json").is_file() else None


def describe(path: Path) -> AdapterInfo | None:
    """What an adapter's files say; None where nothing here can read them. Raises GlmError."""
    tells = _part("glm.adapters", "describe")
    return tells(path) if tells else None


def report(path: str) -> str:
    """All that `python -m glm.inspect` says about a path; "" where it cannot."""
    inspect = _part("glm.inspect", "inspect")
    try:
        return str(inspect(path)) if inspect else ""
    except GlmError:
        return ""


def why_not(bits: int | None, info: ModelInfo | None) -> str:
    """Why a model cannot be opened in so many bits, in a sentence; "" where it can."""
    if bits is None:
        return ""
    tells = _part("glm.quantise", "can_quantise")
    if tells is None:
        return "-"
    return (tells(info.config, bits) if info else None) or ""


def devices() -> list[str]:
    """Where a model may go, as far as this process knows without waking torch."""
    torch = sys.modules.get("torch")
    cards = torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0
    return ["auto", *(f"cuda:{number}" for number in range(cards)), "cpu"]


def hub() -> tuple[str, bool]:
    """(the hub's address, whether it may be asked), from the environment."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    modelscope = os.environ.get("USE_MODELSCOPE_HUB", "").upper() in ("1", "ON", "YES", "TRUE")
    usual = "https://modelscope.cn" if modelscope else "https://huggingface.co"
    return os.environ.get("HF_ENDPOINT") or usual, not offline


def export(wanted: Exporting, progress: Progress) -> Exported:
    """Write a model or an adapter for another program. Raises GlmError."""
    write, request = _part("glm.export", "export"), _part("glm.export", "Wanted")
    if write is None or request is None:
        raise Refused("models.no_export")
    done = write(
        request(
            model=wanted.model,
            folder=wanted.folder,
            to=wanted.target,
            adapter=wanted.adapter,
            alpha=wanted.alpha,
        ),
        progress,
    )
    return Exported(done.folder, done.bytes, str(done.verdict), tuple(done.verdict.notes))


def _part(module: str, name: str) -> Any:
    """A function of a part that may not be there."""
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())

"""Models by id, brought to this machine: only the files needed, with progress and resume.

The hub is huggingface_hub's: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and tokens are honoured; or
ModelScope (modelscope.py beside it). The network is used only when somebody names an id. Also
which models are here already, in the caches and in folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from glm.checkpoint import modelscope
from glm.checkpoint.weights import holds_weights, weight_files
from glm.errors import CheckpointError

Progress = Callable[[str, float | None], None]
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z")
_ALWAYS = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "ice_text.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
_ADAPTERS = ("adapter_config.json", "chatglm-lora.pt", "pytorch_model.pt")
_PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def is_hub_id(text: str) -> bool:
    """`owner/name` or `modelscope:owner/name`, and no folder of that name here."""
    plain = text.removeprefix(modelscope.PREFIX)
    return bool(_ID.match(plain)) and ".." not in text and not Path(text).exists()


def fetch(model_id: str, progress: Progress | None = None, revision: str | None = None) -> Path:
    """The local folder of a hub model, downloaded when it is not cached.

    Where the hub cannot be reached, a model that ModelScope's cache holds is taken from there.
    Raises CheckpointError: no such model, offline and not cached, no disk.
    """
    if model_id.startswith(modelscope.PREFIX) or modelscope.asked_for():
        wanted = [[*_ALWAYS, *weights] for weights in (_SAFETENSORS, _PICKLES)]
        return modelscope.fetch(model_id.removeprefix(modelscope.PREFIX), wanted, progress)
    try:
        return _fetch(model_id, progress, revision)
    except _Unreachable as error:
        if found := modelscope.cached(model_id):
            return found
        raise CheckpointError(str(error)) from error


def cached_models() -> list[tuple[str, Path]]:
    """(id, folder) of every complete model in the caches of the hub and of ModelScope."""
    return [*_hub_models(), *modelscope.cached_models()]


def find_folders(root: str | Path, depth: int = 4, most: int = 200) -> list[Path]:
    """Folders below `root` (itself too) with a config.json and weights, or an adapter, in order.

    Hidden folders and links are not entered, nor what lies below a checkpoint.
    """
    found: list[Path] = []
    waiting = [(Path(root).expanduser(), depth)]
    while waiting and len(found) < most:
        folder, left = waiting.pop(0)
        model = (folder / "config.json").is_file() and holds_weights(folder)
        if model or any((folder / name).is_file() for name in _ADAPTERS):
            found.append(folder)
        elif left:
            waiting += [(inner, left - 1) for inner in _folders(folder)]
    return sorted(found)


class _Unreachable(Exception):
    """Not cached, and the hub does not answer."""


def _fetch(model_id: str, progress: Progress | None, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    bar = _bar(model_id, progress) if progress else None
    folder = Path()
    try:
        for weights in (_SAFETENSORS, _PICKLES):  # pickles only where there is nothing better
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    allow_patterns=[*_ALWAYS, *weights],
                    ignore_patterns=["*/*"],
                    tqdm_class=bar,
                )
            )
            if any(any(folder.glob(pattern)) for pattern in weights):
                return folder
    except LocalEntryNotFoundError as error:
        raise _Unreachable(
            f"{model_id} is not on this machine and the hub cannot be reached; "
            "check the network or HF_ENDPOINT, or open a local folder"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{model_id} cannot be downloaded: {reason}") from error
    raise CheckpointError(f"{model_id} holds no weights this program opens")


def _hub_models() -> Iterator[tuple[str, Path]]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for folder in sorted(Path(HF_HUB_CACHE).glob("models--*--*")):
        snapshots = sorted((folder / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
        for snapshot in reversed(snapshots):
            if (snapshot / "config.json").is_file() and _whole(snapshot):
                yield folder.name.removeprefix("models--").replace("--", "/"), snapshot
                break


def _whole(folder: Path) -> bool:
    try:
        return bool(weight_files(folder))
    except CheckpointError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            inner = [e for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # not ours to read
    return sorted(Path(e.path) for e in inner if not e.name.startswith("."))


def _bar(model_id: str, progress: Progress) -> type:
    """A tqdm class that reports bytes to `progress` instead of drawing."""
    from tqdm.auto import tqdm

    class Reported(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": None, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B" and self.total:
                done, total = self.n / 1e6, self.total / 1e6
                text = f"{model_id}: {done:.0f} of {total:.0f} MB"
                progress(text, min(1.0, self.n / self.total))
            return shown

    return Reported


class _Nowhere:
    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...

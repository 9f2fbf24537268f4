"""Bring a hub model to this machine: only the files needed, with progress and resume.

The hub is huggingface_hub's: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and tokens are honoured.
Never called unless somebody names a hub id.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from glm.errors import CheckpointError

Progress = Callable[[str, float | None], None]
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z")
_ALWAYS = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def is_hub_id(text: str) -> bool:
    """`owner/name`, and no folder of that name here."""
    return bool(_ID.match(text)) and ".." not in text and not Path(text).exists()


def wanted(files: list[str]) -> list[str]:
    """Of a repository's files, those to bring: safetensors where it has them, no code ever."""

    def matching(patterns: tuple[str, ...]) -> list[str]:
        return [f for f in files if any(fnmatch(f, p) for p in patterns) and "/" not in f]

    return matching(_ALWAYS) + (matching(_SAFETENSORS) or matching(_PICKLES))


def fetch(model_id: str, progress: Progress | None = None, revision: str | None = None) -> Path:
    """The local folder of a hub model, downloaded when it is not cached.

    Raises CheckpointError: no such model, offline and not cached, no disk.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        if hub.constants.HF_HUB_OFFLINE:
            return Path(hub.snapshot_download(model_id, revision=revision, local_files_only=True))
        files = wanted(hub.HfApi().list_repo_files(model_id, revision=revision))
        if not files:
            raise CheckpointError(f"{model_id} holds no model this program opens")
        bar = _bar(model_id, progress) if progress else None
        folder = hub.snapshot_download(
            model_id, revision=revision, allow_patterns=files, tqdm_class=bar
        )
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{model_id} is not on this machine and the hub cannot be reached; "
            "check the network or HF_ENDPOINT, or open a local folder"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{model_id} cannot be downloaded: {reason}") from error
    return Path(folder)


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

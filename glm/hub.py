"""Bring a hub model to this machine: only the files needed, with progress and resume.

The hub is huggingface_hub's: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and tokens are honoured.
Never called unless somebody names a hub id.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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


def fetch(model_id: str, progress: Progress | None = None, revision: str | None = None) -> Path:
    """The local folder of a hub model, downloaded when it is not cached.

    Raises CheckpointError: no such model, offline and not cached, no disk.
    """
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
        raise CheckpointError(
            f"{model_id} is not on this machine and the hub cannot be reached; "
            "check the network or HF_ENDPOINT, or open a local folder"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{model_id} cannot be downloaded: {reason}") from error
    raise CheckpointError(f"{model_id} holds no weights this program opens")


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

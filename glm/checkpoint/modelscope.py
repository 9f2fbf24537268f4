"""Models of ModelScope: what its local cache holds, and downloads through its plain file API.

Called for `modelscope:owner/name`, for every id where GLM_USE_MODELSCOPE or VLLM_USE_MODELSCOPE
is 1, and, its cache only, where the Hugging Face hub cannot be reached. MODELSCOPE_CACHE,
MODELSCOPE_ENDPOINT and MODELSCOPE_DOMAIN are honoured. Not covered: private models, revisions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from glm.checkpoint.weights import weight_files
from glm.errors import CheckpointError

Progress = Callable[[str, float | None], None]
PREFIX = "modelscope:"
OWNERS = {"THUDM": "ZhipuAI", "zai-org": "ZhipuAI"}  # the same models under another name
TRIES = 5  # transfers that broke, each going on where it stopped
BLOCK = 1 << 20


def asked_for() -> bool:
    """Does the environment say that plain ids are ModelScope's?"""
    values = (os.environ.get(f"{who}_USE_MODELSCOPE", "") for who in ("GLM", "VLLM"))
    return any(value.lower() in ("1", "true", "yes", "on") for value in values)


def cached(model_id: str) -> Path | None:
    """The complete local folder of a model, wherever ModelScope's versions have put it."""
    for name in _names(model_id):
        for root in _roots():
            for folder in (root / name, root / _written(name)):
                if _complete(folder):
                    return folder
    return None


def cached_models() -> Iterator[tuple[str, Path]]:
    """(`modelscope:owner/name`, folder) of every complete model in the cache."""
    seen: set[Path] = set()
    for root in _roots():
        for folder in sorted(root.glob("[!._]*/[!._]*")):
            if folder.resolve() not in seen and _complete(folder):
                seen.add(folder.resolve())
                owner, name = folder.parts[-2:]
                yield f"{PREFIX}{owner}/{name.replace('___', '.')}", folder


def fetch(model_id: str, wanted: Sequence[Sequence[str]], progress: Progress | None = None) -> Path:
    """The local folder of a model, downloaded when it is not cached.

    `wanted` are sets of file patterns; the first of which a weight file is there is brought.
    Raises CheckpointError: no such model, not reachable, no disk, a file that arrived damaged.
    """
    import requests

    if found := cached(model_id):
        return found
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise CheckpointError(f"{model_id} is not in ModelScope's cache, and HF_HUB_OFFLINE is set")
    try:
        with requests.Session() as session:
            name, files = _listed(session, model_id)
            chosen = _chosen(files, wanted)
            if not chosen:
                raise CheckpointError(f"{model_id} holds no weights this program opens")
            folder = _roots()[0] / _written(name)
            folder.mkdir(parents=True, exist_ok=True)
            bar = _Bar(model_id, sum(int(file["Size"]) for file in chosen), progress)
            for file in chosen:
                url = f"{endpoint()}/api/v1/models/{name}/repo"
                query = {"Revision": "master", "FilePath": file["Path"]}
                _bring(_Transfer(session, url, query, bar), folder / file["Path"], file)
            return folder
    except (requests.ConnectionError, requests.Timeout) as error:
        raise CheckpointError(
            f"{model_id} is not on this machine and ModelScope cannot be reached; "
            "check the network or MODELSCOPE_ENDPOINT, or open a local folder"
        ) from error
    except (requests.RequestException, OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{model_id} cannot be downloaded: {reason}") from error


# ---- where the cache is --------------------------------------------------------------------


def _roots() -> list[Path]:
    """Folders of owners: the present layout first, then older ones."""
    home = os.environ.get("MODELSCOPE_CACHE")
    base = Path(home).expanduser() if home else Path.home() / ".cache" / "modelscope" / "hub"
    return [base / "models", base, base / "hub" / "models", base / "hub"]


def _names(model_id: str) -> list[str]:
    owner, _, name = model_id.partition("/")
    other = OWNERS.get(owner)
    return [model_id, f"{other}/{name}"] if other else [model_id]


def _written(model_id: str) -> str:
    """The id as ModelScope names the folder."""
    owner, _, name = model_id.partition("/")
    return f"{owner}/{name.replace('.', '___')}"


def _complete(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    try:
        return bool(weight_files(folder))
    except CheckpointError:
        return False


# ---- the file API --------------------------------------------------------------------------


def endpoint() -> str:
    """The address of ModelScope, as the environment has it."""
    domain = os.environ.get("MODELSCOPE_DOMAIN", "www.modelscope.cn")
    return os.environ.get("MODELSCOPE_ENDPOINT", f"https://{domain}").rstrip("/")


def _listed(session: Any, model_id: str) -> tuple[str, list[dict[str, Any]]]:
    """The name under which ModelScope has the model, and its files."""
    for name in _names(model_id):
        url = f"{endpoint()}/api/v1/models/{name}/repo/files"
        query = {"Revision": "master", "Recursive": "true"}
        answer = session.get(url, params=query, timeout=30)
        if answer.status_code == 404:
            continue
        answer.raise_for_status()
        files = [file for file in answer.json()["Data"]["Files"] if file.get("Type") != "tree"]
        return name, files
    raise CheckpointError(f"{model_id} cannot be downloaded: ModelScope has no such model")


def _chosen(files: list[dict[str, Any]], wanted: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The files of the first set of patterns that brings weights; never one in a folder."""
    flat = [file for file in files if Path(str(file["Path"])).name == file["Path"]]
    for patterns in wanted:
        chosen = [file for file in flat if any(fnmatch(file["Path"], p) for p in patterns)]
        weights = [file for file in chosen if file["Path"].endswith((".safetensors", ".bin"))]
        if weights:  # last, so that a folder with all its weights is complete
            return [*(file for file in chosen if file not in weights), *weights]
    return []


class _Bar:
    """Bytes of all files together, told to `progress`."""

    def __init__(self, model_id: str, total: int, progress: Progress | None) -> None:
        self._id, self._total, self._progress, self._done = model_id, total, progress, 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress and self._total:
            text = f"{self._id}: {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB"
            self._progress(text, min(1.0, max(0.0, self._done / self._total)))


class _Transfer:
    """One file's bytes from a given one on."""

    def __init__(self, session: Any, url: str, query: dict[str, str], bar: _Bar) -> None:
        self._session, self._url, self._query, self.bar = session, url, query, bar

    def into(self, part: Path, have: int) -> None:
        """Append what is missing; a server that knows no ranges sends everything anew."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._session.get(
            self._url, params=self._query, headers=headers, stream=True, timeout=(10, 60)
        ) as answer:
            answer.raise_for_status()
            again = have and answer.status_code != 206
            if again:
                self.bar.add(-have)
            with part.open("ab" if have and not again else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    file.write(block)
                    self.bar.add(len(block))


def _bring(transfer: _Transfer, target: Path, file: dict[str, Any]) -> None:
    """Download one file, going on where an earlier transfer stopped, and check it."""
    import requests

    size, part = int(file["Size"]), target.with_name(f"{target.name}.part")
    if target.is_file() and target.stat().st_size == size:
        transfer.bar.add(size)
        return
    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    transfer.bar.add(_size(part))
    for attempt in range(TRIES):
        have = _size(part)
        if have == size and (have or part.exists()):
            break
        try:
            transfer.into(part, have)
        except requests.exceptions.ChunkedEncodingError:  # it broke on the way
            if attempt == TRIES - 1:
                raise
    if _size(part) != size:
        raise CheckpointError(f"{target.name} did not arrive whole; try again")
    if (digest := file.get("Sha256")) and _digest(part) != digest:
        part.unlink()
        raise CheckpointError(f"{target.name} arrived damaged; try again")
    part.replace(target)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

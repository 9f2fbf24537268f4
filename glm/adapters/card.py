"""What an adapter was made from, in `glm_adapter.json` beside it; and fingerprints of weights.

Training writes the card; opening compares it with the loaded model. A mismatch is a sentence
that names both sides, never a refusal: shapes decide whether an adapter can be opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from glm.adapters.sources import read_object
from glm.checkpoint.recognise import ModelInfo
from glm.errors import CheckpointError

CARD = "glm_adapter.json"
SAMPLES, SAMPLE = 64, 4096
_CACHED = re.compile(r"models--[^/]+--([^/]+)/snapshots/")


@dataclass(frozen=True, slots=True)
class Card:
    """Fields as in AdapterInfo. `alpha` is kept for files of bare tensors, which lack it."""

    base: str = ""
    base_hash: str = ""
    dialect: str = ""
    layout: str = ""
    data_hash: str = ""
    run: str = ""
    alpha: float | None = None


def card_file(weights: Path) -> Path:
    """Where the card of one bare file lies, so that two files in a folder have two."""
    return weights.with_name(f"{weights.name}.{CARD}")


def read_card(weights: Path) -> Card:
    """The card of a weights file, else its folder's, else an empty one."""
    for file in (card_file(weights), weights.parent / CARD):
        if file.is_file():
            return _card(file)
    return Card()


def write_card(place: Path, card: Card) -> Path:
    """Write it into an adapter's folder, or as the named JSON file; a reader never sees half."""
    file = place / CARD if place.is_dir() else place
    write_json(file, {key: value for key, value in asdict(card).items() if value not in ("", None)})
    return file


def mismatches(made: Card, here: Card) -> tuple[str, ...]:
    """A sentence for each thing both sides know and differ in, naming both."""
    words = {
        "base_hash": "the weights of the base model",
        "dialect": "the dialect",
        "layout": "the mask layout",
        "data_hash": "the data",
    }
    found = []
    if not (made.base_hash and here.base_hash):
        words = {"base": "the base model", **words}
    for key, what in words.items():
        theirs, ours = getattr(made, key), getattr(here, key)
        if theirs and ours and _plain(theirs) != _plain(ours):
            if key == "base_hash":
                theirs, ours = f"{made.base} {theirs[:12]}", f"{here.base} {ours[:12]}"
            found.append(f"{what} is {ours.strip()} here; the adapter was made with {theirs}")
    return tuple(found)


def base_fingerprint(info: ModelInfo) -> str:
    """Tells the weights of two models apart in milliseconds; names and folders do not count."""
    return fingerprint(info.weights)


def fingerprint(files: Iterable[Path]) -> str:
    """Of sizes, beginnings, ends and 64 samples of each file: not proof against forgery."""
    parts = sorted(_sampled(file) for file in files)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def remembered_alpha(weights: Path, memory: Path | None) -> float | None:
    """The alpha given for a bare file before: beside it, else in `memory` by its content."""
    alpha = read_card(weights).alpha
    if alpha is None and memory is not None and memory.is_file():
        alpha = _alpha(memory, read_object(memory).get(fingerprint((weights,))))
    return alpha


def remember_alpha(weights: Path, alpha: float, memory: Path | None) -> bool:
    """Keep it beside the file, or in `memory` where nothing may be written there."""
    card = Card(**{**asdict(read_card(weights)), "alpha": alpha})
    if _may_write(weights.parent) and _written(card_file(weights), card):
        return True
    if memory is None:
        return False
    known = read_object(memory) if memory.is_file() else {}
    memory.parent.mkdir(parents=True, exist_ok=True)
    write_json(memory, {**known, fingerprint((weights,)): alpha})
    return True


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A passing name beside `file` that takes its place at the end: a reader never sees half."""
    passing = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
    try:
        yield passing
        os.replace(passing, file)
    finally:
        passing.unlink(missing_ok=True)


def write_json(file: Path, value: dict[str, Any]) -> None:
    with replacing(file) as passing:
        passing.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def _may_write(folder: Path) -> bool:
    """Whether its mode lets anybody write there: root is not stopped by it, and should be."""
    return bool(folder.stat().st_mode & 0o222)


def _written(file: Path, card: Card) -> bool:
    try:
        write_card(file, card)
    except OSError:
        return False
    return True


def _card(file: Path) -> Card:
    found = read_object(file)
    texts = {}
    for name in (entry.name for entry in fields(Card) if entry.name != "alpha"):
        texts[name] = found.get(name, "")
        if not isinstance(texts[name], str):
            raise CheckpointError(f"{file}: {name} is not a text; mend the file or delete it")
    return Card(**texts, alpha=_alpha(file, found.get("alpha")))


def _alpha(file: Path, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CheckpointError(f"{file}: alpha is not a number; mend the file or delete it")
    return float(value)


def _sampled(file: Path) -> bytes:
    size = file.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with file.open("rb") as stream:
        for start in [*(size * part // SAMPLES for part in range(SAMPLES)), size - SAMPLE]:
            stream.seek(max(0, start))
            digest.update(stream.read(SAMPLE))
    return digest.digest()


def _plain(name: str) -> str:
    """THUDM/chatglm3-6b, /models/chatglm3-6b/ and a snapshot in the hub's cache name one model."""
    if cached := _CACHED.search(name.replace("\\", "/")):
        return cached[1].lower()
    return name.rstrip("/").replace("\\", "/").rpartition("/")[2].lower()

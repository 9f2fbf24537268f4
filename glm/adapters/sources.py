"""Which files are an adapter, told from what is inside them; nothing is unpickled or loaded.

A folder or one file: PEFT folders, `checkpoint-N` folders of the official P-Tuning and LoRA
scripts (or the run folder that holds them), bare files of named parameters. No torch in here.
"""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from glm.errors import CheckpointError

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
KNOWN = (
    "model.safetensors",
    "pytorch_model.bin",
    *PEFT_WEIGHTS,
    "pytorch_model.pt",
    "chatglm-lora.pt",
)
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
NOT_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
HEADER_LIMIT, PICKLE_LIMIT = 100 << 20, 64 << 20

PTUNING, PREFIX, LORA, DORA, RSLORA = "P-Tuning v2", "prefix", "LoRA", "DoRA", "rsLoRA"
OPENED = (PTUNING, PREFIX, LORA, DORA, RSLORA)


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one adapter.

    `settings` is adapter_config.json and `origin` config.json, {} where there is none. `weights`
    are the files that hold its tensors, never the shards with the base model's only.
    """

    kind: str
    path: Path
    weights: tuple[Path, ...]
    reason: str
    settings: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


def looks_like_adapter(path: str | Path) -> str | None:
    """What adapter lies there ("LoRA", "P-Tuning v2", ...), None if it is none."""
    try:
        return find(path).kind
    except CheckpointError:
        return None


def find(path: str | Path) -> Source:
    """The adapter in a folder or file. Raises CheckpointError, saying what was looked for."""
    try:
        place = Path(path).expanduser()
        bare = place.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, nobody's home, a NUL
        raise CheckpointError(f"no adapter at {str(path)[:100]} ({error})") from error
    if bare:
        if place.name in (PEFT_CONFIG, *PEFT_WEIGHTS) and (place.parent / PEFT_CONFIG).is_file():
            return _peft(place.parent)
        return _bare(place, (place,)) or _nothing(place)
    if not place.is_dir():
        raise CheckpointError(f"no adapter at {place}")
    if (place / PEFT_CONFIG).is_file():
        return _peft(place)
    for files in _candidates(place):
        if source := _bare(place, files):
            return source
    return _newest_checkpoint(place) or _nothing(place)


def names(file: Path) -> set[str]:
    """The tensor names in a file; a pickle's other short texts come along."""
    return set(header(file)) if file.suffix == ".safetensors" else set(_pickled_names(file))


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file, from its first bytes."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(HEADER_LIMIT, file.stat().st_size - 8):
                raise ValueError("its header does not fit")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        ends = (entry["data_offsets"][1] for entry in entries.values())
        if 8 + length + max(ends, default=0) > file.stat().st_size:
            raise ValueError("its tensors do not fit")
        return {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged or cut off: {error}") from error


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError naming the file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return found


def _peft(folder: Path) -> Source:
    settings = read_object(folder / PEFT_CONFIG)
    kind = str(settings.get("peft_type") or "without a type").upper()
    weights = [folder / name for name in PEFT_WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise CheckpointError(f"no {' or '.join(PEFT_WEIGHTS)} in {folder}")
    words = {"PREFIX_TUNING": PREFIX, "LORA": LORA}.get(kind, f"PEFT {kind}")
    if words == LORA and settings.get("use_dora"):
        words = DORA
    elif words == LORA and settings.get("use_rslora"):
        words = RSLORA
    reason = f"{PEFT_CONFIG} says {kind}"
    return Source(words, folder, (weights[0],), reason, settings, _origin(folder))


def _bare(place: Path, files: tuple[Path, ...]) -> Source | None:
    """An adapter without a config: its tensors' names say what it is."""
    keys = {file: names(file) for file in files}
    for kind, sign in ((PTUNING, "prefix_encoder."), (LORA, ".lora_A."), (PREFIX, "prompt_emb")):
        weights = tuple(file for file in files if any(sign in key for key in keys[file]))
        if weights:
            first = min(key for key in keys[weights[0]] if sign in key)
            dora = kind == LORA and any(".lora_magnitude" in key for key in keys[weights[0]])
            reason = f"{weights[0].name} holds {first}"
            origin = _origin(weights[0].parent)
            return Source(DORA if dora else kind, place, weights, reason, {}, origin)
    return None


def _nothing(place: Path) -> Source:
    raise CheckpointError(
        f"no adapter at {place}: no {PEFT_CONFIG}, and no file with lora_A, prefix_encoder "
        "or prompt_embeddings in it"
    )


def _candidates(folder: Path) -> Iterator[tuple[Path, ...]]:
    """Sets of files that may be one checkpoint, the most usual first."""
    for name in INDEXES:
        if (folder / name).is_file():
            yield _shards(folder, folder / name)
    yield from ((folder / name,) for name in KNOWN if (folder / name).is_file())
    others = (file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES)
    shard = re.compile(r".*-\d+-of-\d+\..*")
    for file in others:
        ours = file.name not in KNOWN and not NOT_WEIGHTS.fullmatch(file.name)
        if ours and file.is_file() and not shard.fullmatch(file.name):
            yield (file,)


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    """The shards that an index says hold a part of an adapter."""
    placed = read_object(index).get("weight_map")
    if not isinstance(placed, dict):
        raise CheckpointError(f"{index} is not a weight index")
    signs = ("prefix_encoder.", ".lora_", "prompt_embeddings")
    wanted = {file for key, file in placed.items() if any(sign in key for sign in signs)}
    for name in sorted(map(str, wanted)):
        if Path(name).name != name:
            raise CheckpointError(f"{index} names a file outside its folder: {name}")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing; {index.name} names it")
    return tuple(folder / name for name in sorted(map(str, wanted)))


def _newest_checkpoint(folder: Path) -> Source | None:
    """The last complete `checkpoint-N` of a run folder."""
    found = [
        (int(match[1]), child)
        for child in folder.iterdir()
        if child.is_dir() and (match := CHECKPOINT.fullmatch(child.name))
    ]
    for _, child in sorted(found, reverse=True):
        if looks_like_adapter(child):
            return find(child)
    return None


def _origin(folder: Path) -> dict[str, Any]:
    """config.json, which the official scripts write beside their weights."""
    file = folder / "config.json"
    return read_object(file) if file.is_file() else {}


def _pickled_names(file: Path) -> Iterator[str]:
    """Texts of a pickle, read opcode by opcode: nothing in it runs."""
    stream = BytesIO(_pickle(file))
    for _ in range(5):  # files older than torch 1.6 hold their names in the fourth pickle
        try:
            for _, value, _ in pickletools.genops(stream):
                if isinstance(value, str) and " " not in value:
                    yield value
        except (ValueError, OverflowError, MemoryError):
            return


def _pickle(file: Path) -> bytes:
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as stream:
                return stream.read(PICKLE_LIMIT)
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.filename.rpartition("/")[2] == "data.pkl":
                    with archive.open(entry) as stream:
                        return stream.read(PICKLE_LIMIT)
    except (OSError, zipfile.BadZipFile, RuntimeError, zlib.error) as error:
        raise CheckpointError(f"{file} is damaged or cut off: {error}") from error
    return b""

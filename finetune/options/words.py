"""Options as people wrote them: on the command line, in a YAML or JSON file, in earlier systems'.

Words come in order of weight: files first, the command line last. Names are told by the options'
own names and aliases, else by the table of earlier systems (`finetune/options/earlier.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finetune.options import earlier
from finetune.options.option import Word, named, normal, positive, split_flags, unknown

FILE_FLAGS = ("config", "train_args_file")
# Sections of the YAML of finetune_hf.py; their keys mean the same wherever they stand.
SECTIONS = ("data_config", "training_args", "peft_config")
# What Firefly's train_qlora.py did without being told.
FIREFLY = {"method": "qlora", "layout": "eos-per-turn", "accumulation": 1}
# Spelt so by transformers_tasks' train.py alone, which made a step of every batch.
TRANSFORMERS_TASKS = {
    "train_path", "dev_path", "save_freq", "max_source_seq_len", "max_target_seq_len",
    "img_log_dir", "img_log_name",
}  # fmt: skip


@dataclass
class Words:
    """What was found: words, problems, and notes about what has no effect."""

    words: list[Word] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, config: type, raw: Mapping[str, tuple[Any, str]]) -> None:
        """Understand names of one source: name -> (raw value, where it stands)."""
        everything = {name: value for name, (value, _) in raw.items()}
        for name, (value, source) in raw.items():
            if value is None:
                continue
            if option := named(config).get(name):
                self.words.append(Word(option.name, value, source))
            elif name in earlier.RULES:
                self._translate(name, everything, source)
            else:
                self.problems.append(f"{source}: {unknown(config, name, earlier.RULES)}")

    def _translate(self, name: str, everything: Mapping[str, Any], source: str) -> None:
        try:
            values, note = earlier.translate(name, everything)
        except ValueError as error:
            self.problems.append(f"{source}: {error}")
            return
        self.words += [Word(key, value, source) for key, value in values.items()]
        if note:
            self.notes.append(f"{source}: {note}")


def from_command_line(config: type, argv: Sequence[str]) -> Words:
    """The words of a command line and of the files it names."""
    found = Words()
    flags, loose = split_flags(argv)
    for word in loose:
        if Path(word).suffix in (".json", ".yaml", ".yml"):
            flags.insert(0, Word("--config", word, word))
        else:
            found.problems.append(f"{word!r} stands before any option; did you mean --train-file?")
    if TRANSFORMERS_TASKS & {normal(flag.name) for flag in flags}:
        found.words.append(Word("accumulation", 1, "train.py of transformers_tasks"))
    files = [flag for flag in flags if normal(flag.name) in FILE_FLAGS]
    for flag in files:
        _add_files(found, config, flag)
    found.add(config, _joined(config, [flag for flag in flags if flag not in files], found))
    return found


def _joined(config: type, flags: Sequence[Word], found: Words) -> dict[str, tuple[Any, str]]:
    """Flags by name: of a repeated one the last counts, lists grow; `--no-x` is x false."""
    raw: dict[str, tuple[Any, str]] = {}
    for written in flags:
        try:
            flag = positive(config, written)
        except ValueError as error:
            found.problems.append(str(error))
            continue
        name, value = normal(flag.name), flag.raw
        if option := named(config).get(name):
            name = option.name
            if value is True and option.kind != "switch":
                found.problems.append(f"{flag.source} needs a value")
                continue
            if option.kind == "list" and name in raw:
                value = [*_items(raw[name][0]), *_items(value)]
        raw.pop(name, None)  # the later one is also read later
        raw[name] = (value, flag.source)
    return raw


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


# ---- files ----


def _add_files(found: Words, config: type, flag: Word) -> None:
    firefly = normal(flag.name) == "train_args_file"
    if flag.raw is True:
        found.problems.append(f"{flag.source} needs a file")
        return
    for path in map(Path, _items(flag.raw)):
        try:
            raw = _read(path)
        except ValueError as error:
            found.problems.append(f"{flag.source} {path}: {error}")
            continue
        if firefly:
            raw = {**FIREFLY, **raw}
        found.add(config, {name: (value, f"{path}: {name}") for name, value in raw.items()})


def _read(path: Path) -> dict[str, Any]:
    """The options in a file, out of their sections. Raises ValueError that says what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} (line {error.lineno})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"it is not YAML: {getattr(error, 'problem', error)}{where}") from None
    if not isinstance(found, dict):
        raise ValueError("option: value pairs are needed")
    return _flat(found)


def _flat(found: Mapping[Any, Any]) -> dict[str, Any]:
    """Sections opened. finetune_hf.py made a step of every batch, and without a peft_config
    trained all weights.
    """
    flat: dict[str, Any] = {}
    for key, value in found.items():
        name = normal(str(key))
        if name in SECTIONS and isinstance(value, dict):
            flat.update(_flat(value))
        elif name not in SECTIONS:
            flat[name] = value
    official = any(normal(str(key)) in SECTIONS for key in found)
    if official and "peft_type" not in flat and "data_config" in map(normal, map(str, found)):
        flat.setdefault("method", "full")
    return {"accumulation": 1, **flat} if official else flat

"""Every option of a training run, once; and the run's options from defaults, preset, files, flags.

    defaults < preset < --config FILE < command line

The command line, the YAML file, the help, `docs/training_options.md` and the page's form come
from the fields in `finetune/options/fields/`. All problems are listed at once. `save` writes the
resolved options, and `--config` of that file gives the same again.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.options import presets
from finetune.options.checks import problems
from finetune.options.fields.data import Data
from finetune.options.fields.machines import Machines
from finetune.options.fields.method import Method
from finetune.options.fields.model import Model
from finetune.options.fields.run import Run
from finetune.options.fields.steps import Steps
from finetune.options.option import BadConfig, Word, help_text, options, read_value, shown
from finetune.options.words import Words, from_command_line
from finetune.training.launching import deepspeed_file, effective, read_deepspeed
from finetune.training.machine import Machine

USAGE = (
    "usage: python -m finetune.train [--config FILE] [--train-args-file FILE.json] [options]\n"
    "Trains the embedded model, or --model, on --train-file. defaults < preset < file < flags."
)


@dataclass(frozen=True)
class TrainConfig(Machines, Run, Steps, Data, Method, Model):
    """What a run was asked for, checked. (The last base's fields come first.)"""


@dataclass(frozen=True)
class Reading:
    """A resolved configuration; the names somebody gave, and sentences about what has no effect."""

    config: TrainConfig
    given: frozenset[str]
    notes: tuple[str, ...] = ()


def load_config(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> TrainConfig:
    """The options of a command line and of the files it names; what has no effect is said.

    Raises BadConfig with every problem; `--help` prints all options and ends the program.
    """
    if any(word in ("--help", "-h") for word in argv):
        print(help_text(TrainConfig, USAGE))
        raise SystemExit(0)
    reading = read_config(argv, environ)
    if environ.get("LOCAL_RANK", "0") == "0":
        for note in reading.notes:
            print(f"note: {note}", file=sys.stderr)
    return reading.config


def read_config(
    argv: Sequence[str], environ: Mapping[str, str] = os.environ, machine: Machine | None = None
) -> Reading:
    """Resolve and check. Raises BadConfig. `machine` is this one where it is not given."""
    words = from_command_line(TrainConfig, argv)
    config, wrong = resolve(words)
    wrong = [*words.problems, *wrong, *problems(config, environ, machine)]
    if wrong:
        raise BadConfig(wrong)
    notes = [*words.notes]
    if file := deepspeed_file(config):
        notes.append(f"{file}: {effective(read_deepspeed(file))}")
    return Reading(config, frozenset(word.name for word in words.words), tuple(notes))


def resolve(words: Words) -> tuple[TrainConfig, list[str]]:
    """The configuration of words in order of weight, and what is wrong with their values."""
    given: dict[str, Any] = {}
    wrong: list[str] = []
    for word in words.words:
        try:
            given[word.name] = read_value(options(TrainConfig)[word.name], word.raw)
        except ValueError as error:
            wrong.append(f"{word.source} is {_said(word)}; {error}")
    if "method" not in given and "pre_seq_len" in given:
        given["method"] = "ptuning"
    preset, method = given.get("preset", "default"), given.get("method", "lora")
    try:
        filled = presets.values(preset, method)
    except ValueError as error:
        filled = {}
        wrong.append(f"--preset is {preset}; {error}")
    return TrainConfig(**{**filled, **given}), wrong


def _said(word: Word) -> str:
    return repr(" ".join(map(str, word.raw)) if isinstance(word.raw, list) else word.raw)


def save(config: TrainConfig, path: str | Path) -> None:
    """Write every option as YAML, replacing the file at once."""
    values = {
        name: list(value) if isinstance(value, tuple) else "auto" if value is None else value
        for name, value in dataclasses.asdict(config).items()
    }
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path = Path(path)
    written = path.with_name(path.name + ".new")
    written.write_text(f"# python -m finetune.train --config {path.name}\n{text}", "utf-8")
    written.replace(path)


def to_argv(config: TrainConfig) -> list[str]:
    """The shortest command line that gives this configuration."""
    filled = presets.values(config.preset, config.method)
    usual = TrainConfig(**filled)
    argv: list[str] = []
    for option in options(TrainConfig).values():
        value = getattr(config, option.name)
        if value == getattr(usual, option.name):
            continue
        if isinstance(value, bool):
            argv.append(option.flag if value else f"--no-{option.flag[2:]}")
        elif isinstance(value, tuple):
            argv += [option.flag, *value] if value else [f"{option.flag}="]
        else:
            text = repr(value) if isinstance(value, float) else shown(value)
            argv += [f"{option.flag}={text}"] if text.startswith("--") else [option.flag, text]
    return argv


def run_folder(config: TrainConfig, now: str, root: Path) -> Path:
    """Where a run goes that named no folder; `now` is a date and time for people."""
    return Path(config.output_dir) if config.output_dir else root / f"{config.method}-{now}"

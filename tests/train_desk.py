"""Options of a training run as tests give them: a small data file, a machine that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.config import Reading, TrainConfig, read_config
from finetune.options.option import BadConfig
from finetune.training.machine import Gpu, Machine

CPU = Machine(cores=4, compiler="/usr/bin/c++")
H100 = Gpu("NVIDIA H100", 80 << 30, 9.0)
V100 = Gpu("NVIDIA V100", 16 << 30, 7.0)


def one_gpu(card: Gpu = H100, count: int = 1) -> Machine:
    return Machine((card,) * count, cores=16, compiler="/usr/bin/c++")


def rows(folder: Path, name: str = "rows.jsonl") -> str:
    """A file of one row."""
    file = folder / name
    file.write_text('{"prompt": "1+1?", "response": "2"}\n', encoding="utf-8")
    return str(file)


def reading(words: str | list[str], file: str, machine: Machine = CPU, **environ: str) -> Reading:
    """Read a command line that has the data file already."""
    given = words.split() if isinstance(words, str) else words
    return read_config(["--train-file", file, *given], environ, machine)


def config(words: str | list[str], file: str, machine: Machine = CPU) -> TrainConfig:
    return reading(words, file, machine).config


def wrong(words: str | list[str], file: str, machine: Machine = CPU, **environ: str) -> str:
    """All problems of a command line, one a line."""
    with pytest.raises(BadConfig) as caught:
        reading(words, file, machine, **environ)
    return "\n".join(caught.value.problems)

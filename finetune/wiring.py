"""Where training meets the rows: this process's stream of batches, the dev batches, the loss.

The one file to change when the parts that read, tokenise and batch rows change.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune.config import TrainConfig
from finetune.layouts import Example, Limits, choose
from finetune.run_folder import RunFolder
from finetune.sources import sources
from glm.adapters.card import fingerprint
from glm.dialects import DIALECTS
from glm.messages import Conversation, Message
from glm.recognise import ModelInfo
from glm.tokenizers import open_tokenizer

if TYPE_CHECKING:
    from finetune.machines import Crew

Batch = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """`steps` are those of all epochs; `dev` the dev batches of all processes, None without."""

    stream: Any
    dev: Iterable[Batch] | None
    steps: int
    hash: str
    layout: str


def prepare(cfg: TrainConfig, info: ModelInfo, run: RunFolder, crew: Crew) -> Data:
    dialect = DIALECTS[info.dialect](open_tokenizer(info))
    layout = choose(cfg.layout, dialect)
    limits = Limits(cfg.max_seq_length, cfg.max_source_length, cfg.max_target_length, cfg.overlong)
    files = [item.path for item in sources(cfg.train_file, cfg.data_dir)]
    rows = _read(files, layout, dialect, limits)
    dev_files = [item.path for item in sources(cfg.dev_file, cfg.data_dir)]
    dev = _read(dev_files, layout, dialect, limits)
    stream = Shuffled(rows, cfg.batch_size, cfg.seed, crew)
    whole = cfg.batch_size * cfg.accumulation * crew.world
    steps = max(1, round(len(rows) * cfg.epochs / whole))
    size = cfg.eval_batch_size
    batches = [padded(dev[i : i + size]) for i in range(0, len(dev), size)]
    return Data(stream, batches or None, steps, fingerprint(files), layout.name)


def tokens_in(batch: Batch) -> int:
    """Tokens that are no padding."""
    return int(batch["tokens"]) if "tokens" in batch else int(batch["input_ids"].numel())


def loss_sum(model: Any, batch: Batch) -> torch.Tensor:
    """The loss over the learnt tokens of a batch, summed."""
    given = {key: batch[key] for key in ("input_ids", "position_ids") if key in batch}
    logits = model(**given, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), reduction="sum"
    )


def quantised_as_loaded(model: Any) -> AbstractContextManager[Any]:
    """Measuring the dev loss packs 4 bit weights anew on some CPUs, and they no longer train."""
    if not getattr(model, "is_quantized", False):
        return nullcontext()
    from glm.quantise import as_loaded

    return as_loaded(model)


class Shuffled:
    """Rows in an order of their own in each epoch, in batches."""

    def __init__(self, rows: Sequence[Example], size: int, seed: int, crew: Crew) -> None:
        self.rows, self.size, self.seed, self.crew = rows, size, seed, crew
        self.done = 0

    @property
    def epoch(self) -> float:
        return self.done / len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            first = self.done + self.crew.rank * self.size
            batch = padded([self._row(first + i) for i in range(self.size)])
            self.done += self.size * self.crew.world
            yield batch

    def _row(self, number: int) -> Example:
        epoch, place = divmod(number, len(self.rows))
        order = list(range(len(self.rows)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return self.rows[order[place]]

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def load(self, state: dict[str, Any]) -> None:
        self.done = int(state["done"])


def padded(rows: Sequence[Example]) -> Batch:
    """Rows of one batch, filled up on the right."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        labels[number, : len(row.ids)] = torch.tensor(row.labels)
    places = torch.arange(width).expand(len(rows), -1)
    return {"input_ids": ids, "labels": labels, "position_ids": places}


def _read(files: Iterable[Path], layout: Any, dialect: Any, limits: Limits) -> list[Example]:
    found = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            turns = json.loads(line)["conversations"]
            talk = Conversation(tuple(Message(turn["role"], turn["content"]) for turn in turns))
            made = layout.encode(talk, dialect, limits)
            if isinstance(made, Example):
                found.append(made)
    return found

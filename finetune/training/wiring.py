"""Where training meets the rows: this process's batches, the dev batches, the loss of one.

The one file to change when the parts that read, tokenise and batch rows change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune.batches.collate import Batch, Collator
from finetune.batches.loader import Loader
from finetune.batches.rehearsal import Rehearsal
from finetune.batches.tally import Tally
from finetune.config import TrainConfig
from finetune.data import Epoch, Part, Place, Plan, Source, Stream
from finetune.files.rows import open_rows
from finetune.files.sources import sources
from finetune.formats import BadRow, read_row
from finetune.layouts import Example, Limits, choose
from finetune.layouts.example import NOTHING_LEARNT
from finetune.preview import preview, sanity_check
from finetune.training.fused import fuse
from finetune.training.learnt_head import learn_only
from finetune.training.row_attention import attend_by_rows
from glm.adapters.card import fingerprint
from glm.checkpoint.recognise import ModelInfo
from glm.dialects import DIALECTS
from glm.errors import BadRequest
from glm.messages import Conversation
from glm.tokenizers.opening import open_tokenizer

if TYPE_CHECKING:
    from finetune.training.machines import Crew

FLASH = "flash_attention_2"
ASSETS = Path(__file__).parents[2] / "assets" / "data"
SHIPPED = (ASSETS / "tools_zh.jsonl", ASSETS / "tools_en.jsonl")


class Talks:
    """The rows of a file as conversations; no more than `most` of them, where it is not 0."""

    def __init__(self, path: Path, form: str, most: int = 0) -> None:
        self.rows, self.form = open_rows(path), form
        self.size = min(len(self.rows), most) if most else len(self.rows)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Conversation:
        row, _ = self.rows[index]
        try:
            return read_row(row, self.form)
        except BadRow as error:
            raise BadRow(f"{self.rows.place(index)}: {error}") from None


class Endless:
    """The batches of one process, epoch after epoch; a step may begin in one and end in the next.

    `each` is how many batches an epoch has in all processes, about.
    """

    def __init__(self, loader: Loader, each: int) -> None:
        self.loader, self.each = loader, each

    @property
    def epoch(self) -> float:
        place = self.loader.place
        return place.epoch + min(place.next / self.each, 1.0)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batches = iter(self.loader)
            with torch.random.fork_rng(devices=[]):  # workers are seeded from the run's numbers
                first = next(batches, None)
            if first is not None:
                yield first
            yield from batches

    def state(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)


class Dev:
    """The dev batches of one process, each time from the first; all processes get as many."""

    def __init__(self, stream: Stream, part: Part) -> None:
        self.stream, self.part = stream, part

    def __iter__(self) -> Iterator[Batch]:
        return (batch for batch, _ in Epoch(self.stream, self.part, Place()))


@dataclass(frozen=True)
class Data:
    """`steps` are those of all epochs, about; `told` says what became of the first rows, and how
    the first is learnt; `page` makes the HTML page about some.
    """

    stream: Endless
    dev: Dev | None
    steps: int
    hash: str
    layout: str
    told: tuple[str, ...]
    page: Callable[[], str]


def prepare(cfg: TrainConfig, info: ModelInfo, model: Any, crew: Crew) -> Data:
    """Open the files and look at the first rows. Raises BadRequest when none can be trained on."""
    dialect = DIALECTS[info.dialect](open_tokenizer(info))
    layout = choose(cfg.layout, dialect)
    both = (cfg.max_source_length, cfg.max_target_length)
    limits = Limits(cfg.max_seq_length, *both, overlong=cfg.overlong)  # type: ignore[arg-type]
    encode = partial(layout.encode, dialect=dialect, limits=limits)
    collator = _collator(cfg, info, model)
    plan = Plan(
        cfg.batch_size, cfg.packing, cfg.group_by_length, cfg.max_seq_length, cfg.seed,
        collator=collator,
    )  # fmt: skip
    files = [item.path for item in sources(cfg.train_file, cfg.data_dir)]
    files += SHIPPED if cfg.mix_tools and not info.embedded else ()
    rows = with_tools(_talks(cfg, cfg.train_file, cfg.max_rows), cfg.mix_tools, info.embedded)
    stream = Stream(rows, encode, plan)
    survey = stream.survey()
    part = Part(crew.rank, crew.world)
    loader = Loader(stream, part, cfg.dataloader_num_workers)
    each = survey.batches_of_an_epoch
    if not each:
        raise BadRequest("; ".join(["no row can be trained on", *_why(survey.tally, cfg)]))
    steps = math.ceil(math.ceil(each / crew.world) * cfg.epochs / cfg.accumulation)
    return Data(
        Endless(loader, each),
        _dev(cfg, encode, collator, part),
        max(steps, 1),
        fingerprint(_files(files)),
        layout.name,
        (*_told(survey.tally, survey.exact), *_first_row(stream, dialect)),
        partial(preview, _readable(stream.sources), cfg.preview, layout, dialect, limits),
    )


def make_fast(cfg: TrainConfig, model: Any) -> None:
    """The head runs on learnt positions only, the attention of packed rows row by row, and what
    stands around the matrices in fewer passes.
    """
    learn_only(model)
    if not (cfg.zero or cfg.deepspeed or cfg.fsdp):  # they gather what a module is called with
        fuse(model)
    if cfg.packing:
        attend_by_rows(model)


def tokens_in(batch: Batch) -> int:
    """Tokens that are no padding; of packed rows, whose padding stands at 0, all others."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    places = batch["position_ids"]
    return int((places if places.dim() == 2 else places.sum(1)).gt(0).sum())


def loss_sum(model: Any, batch: Batch) -> torch.Tensor:
    """The loss over the learnt tokens of a batch, summed."""
    loss: torch.Tensor = model(**batch, use_cache=False, num_items_in_batch=1).loss
    return loss


def quantised_as_loaded(model: Any) -> AbstractContextManager[Any]:
    """Measuring the dev loss packs 4 bit weights anew on some CPUs, and they no longer train."""
    if not getattr(model, "is_quantized", False):
        return nullcontext()
    from glm.quantisation.quantise import as_loaded

    return as_loaded(model)


def _talks(cfg: TrainConfig, names: Sequence[str], most: int) -> list[Source]:
    return [
        Source(Talks(item.path, cfg.format, most), item.weight, item.path.name)
        for item in sources(names, cfg.data_dir)
    ]


def with_tools(mine: list[Source], share: float, embedded: bool = False) -> list[Source]:
    """These rows and others that call tools, `share` of all, so that the ability stays: shipped
    ones; for the embedded model dialogues as it was made from.
    """
    if not share:
        return mine
    others = [Source(Talks(path, "auto"), name="shipped rows with tools") for path in SHIPPED]
    if embedded:
        others = [Source(Rehearsal(), name="what the embedded model knows")]
    wanted = sum(len(source.rows) * source.weight for source in mine) * share / (1 - share)
    weight = wanted / sum(len(source.rows) for source in others)
    return [*mine, *(replace(source, weight=weight) for source in others)]


def _dev(cfg: TrainConfig, encode: Any, collator: Collator, part: Part) -> Dev | None:
    if not cfg.dev_file:
        return None
    plan = Plan(cfg.eval_batch_size, shuffle=False, collator=collator)
    stream = Stream(_talks(cfg, cfg.dev_file, cfg.max_dev_rows), encode, plan)
    survey = stream.survey()
    if not survey.batches:
        raise BadRequest("; ".join(["no dev row can be used", *survey.tally.lines()[1:]]))
    return Dev(stream, part)


def _collator(cfg: TrainConfig, info: ModelInfo, model: Any) -> Collator:
    pad = getattr(model.config, "pad_token_id", None)
    v1 = model.config if info.arch == "chatglm1" else None
    return Collator(pad if isinstance(pad, int) else 0, v1=v1, flat=cfg.attention == FLASH)


def _files(paths: Sequence[Path]) -> list[Path]:
    found = [
        file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
    ]
    return [file for file in found if file.is_file()]


def _readable(sources: Sequence[Source]) -> Iterator[Conversation]:
    for source in sources:
        for number in range(len(source.rows)):
            with suppress(BadRequest):
                yield source.rows[number]


def _first_row(stream: Stream, dialect: Any) -> Iterator[str]:
    """The official sanity check, of the first row that is trained on."""
    for row in _readable(stream.sources):
        made = stream.encode(row)
        if isinstance(made, Example):
            return sanity_check(made, dialect)
    return iter(())


def _why(tally: Tally, cfg: TrainConfig) -> list[str]:
    """What became of all rows, and what to do where they are too long."""
    said = tally.lines()[1:]
    longer = any("longer than" in reason for reason in tally.skipped)
    if longer or (cfg.overlong == "truncate" and NOTHING_LEARNT in tally.skipped):
        other = ", or give --overlong cut-turns or truncate" if cfg.overlong == "skip" else ""
        said.append(f"raise --max-seq-length ({cfg.max_seq_length}){other}")
    return said


def _told(tally: Tally, exact: bool) -> tuple[str, ...]:
    first, *rest = tally.lines()
    return (first if exact else f"of the first rows {first}", *rest)

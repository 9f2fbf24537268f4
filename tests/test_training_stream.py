"""The training stream: every row once, in a seeded order that resumes, on many processes."""

import json
import random
import time
from collections import Counter
from functools import partial

import pytest
import torch

from finetune.batches.collate import Collator
from finetune.batches.loader import Loader
from finetune.batches.order import BLOCK, Order, Share
from finetune.batches.packing import fill, pack
from finetune.data import Part, Plan, Source, Stream
from finetune.layouts import NOT_LEARNT, Limits, choose
from glm.errors import BadRequest
from glm.messages import Conversation, Message
from tests.training_desk import Listed, Numbered, chat, small

WINDOW = 32
# A machine may have fewer cores than a test has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def encode(limits=None):
    dialect, limits = small(), limits or Limits(512)
    return partial(choose("chatglm3", dialect).encode, dialect=dialect, limits=limits)


def stream(rows, encoder=None, **plan):
    sources = rows if isinstance(rows, list) else [Source(rows)]
    plan = {"window": WINDOW, "capacity": 128} | plan
    return Stream(sources, encoder or encode(), Plan(**plan))


def numbers(batch):
    """The numbers of the rows of a batch, from their questions; idle lines have none."""
    dialect, out = small(), []
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        if all(label == NOT_LEARNT for label in labels):
            continue
        start, user, answer = dialect.start[0], dialect.role["user"], dialect.role["assistant"]
        for at in [i for i, token in enumerate(ids) if token == start]:
            begin, end = ids.index(user, at), ids.index(answer, at)
            out.append(int(dialect.tokenizer.decode(ids[begin + 1 : end])))
    return out


def rows_of(loader):
    return [number for batch in loader for number in numbers(batch)]


WAYS = {
    "plain": {"grouping": False},
    "in batches": {"grouping": False, "size": 4},
    "grouped": {"size": 4},
    "packed": {"packing": True},
    "packed lines": {"packing": True, "size": 3},
}


@pytest.mark.parametrize("plan", WAYS.values(), ids=WAYS)
def test_an_epoch_gives_every_row_once_and_the_next_in_another_order(plan):
    loader = Loader(stream(Numbered(150), **plan))
    first, second = rows_of(loader), rows_of(loader)
    assert sorted(first) == sorted(second) == list(range(150))
    assert first != second and first != sorted(first)


def test_the_order_is_that_of_the_seed():
    one, same, other = (rows_of(Loader(stream(Numbered(90), seed=s))) for s in (1, 1, 2))
    assert one == same != other


def test_without_shuffling_the_rows_come_as_they_are():
    loader = Loader(stream(Numbered(100), size=3, shuffle=False))
    assert rows_of(loader) == list(range(100))


@pytest.mark.parametrize("plan", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_batches_of_one_without_loss_or_duplicates(plan, world):
    alone = list(Loader(stream(Numbered(100), **plan)))
    shared = [list(Loader(stream(Numbered(100), **plan), Part(r, world))) for r in range(world)]
    assert len({len(batches) for batches in shared}) == 1, "all take the same number of steps"
    together = [numbers(batch) for step in zip(*shared, strict=True) for batch in step]
    assert [found for found in together if found] == [numbers(batch) for batch in alone]


@pytest.mark.parametrize("plan", [WAYS["packed"], WAYS["grouped"]], ids=["packed", "grouped"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_stopped_run_goes_on_with_exactly_the_batches_it_had_left(plan, world):
    whole = [numbers(b) for b in Loader(stream(Numbered(100), **plan), Part(0, world))]
    for stop in range(1, len(whole) + 1):
        loader = Loader(stream(Numbered(100), **plan), Part(0, world))
        reading = iter(loader)
        seen = [numbers(next(reading)) for _ in range(stop)]
        state = json.loads(json.dumps(loader.state_dict()))
        again = Loader(stream(Numbered(100), **plan), Part(0, world))
        again.load_state_dict(state)
        assert seen + [numbers(batch) for batch in again] == whole


def test_a_run_goes_on_with_another_number_of_processes():
    whole = [numbers(batch) for batch in Loader(stream(Numbered(100), packing=True))]
    loader = Loader(stream(Numbered(100), packing=True), Part(0, 2))
    reading = iter(loader)
    next(reading), next(reading)  # four batches, two by each process
    again = Loader(stream(Numbered(100), packing=True))
    again.load_state_dict(loader.state_dict())
    assert [numbers(batch) for batch in again] == whole[4:]


def test_going_on_reads_nothing_before_the_window_it_stopped_in():
    loader = Loader(stream(Numbered(10 * WINDOW), packing=True))
    reading = iter(loader)
    while loader.place.window < 5:
        next(reading)
    rows = Numbered(10 * WINDOW)
    again = Loader(stream(rows, packing=True))
    again.load_state_dict(loader.state_dict())
    next(iter(again))
    assert len(rows.read) == WINDOW


def test_the_second_epoch_is_resumed_too():
    loader = Loader(stream(Numbered(60), packing=True))
    list(loader)
    reading = iter(loader)
    next(reading)
    again = Loader(stream(Numbered(60), packing=True))
    again.load_state_dict(loader.state_dict())
    assert [numbers(b) for b in again] == [numbers(b) for b in reading]
    assert again.state_dict() == loader.state_dict() and again.place.epoch == 2


def test_several_epochs_in_one_go_are_those_one_by_one_and_go_on_from_anywhere():
    def read(loader):
        return [numbers(batch) for batch in loader]

    one_by_one = Loader(stream(Numbered(50), packing=True))
    wanted = [found for _ in range(3) for found in read(one_by_one)]
    assert read(Loader(stream(Numbered(50), packing=True), epochs=3)) == wanted
    for stop in range(1, len(wanted)):
        loader = Loader(stream(Numbered(50), packing=True), epochs=3)
        reading = iter(loader)
        seen = [numbers(next(reading)) for _ in range(stop)]
        again = Loader(stream(Numbered(50), packing=True), epochs=3)
        again.load_state_dict(loader.state_dict())
        assert seen + read(again) == wanted
    assert read(one_by_one) and not read(Loader(stream(Numbered(5)), epochs=0))


def test_the_state_of_other_data_is_refused_by_name():
    state = Loader(stream(Numbered(60))).state_dict()
    for other in (stream(Numbered(61)), stream(Numbered(60), seed=3), stream(Numbered(60), size=2)):
        with pytest.raises(BadRequest, match="not the data this run began with: .* was .*, is "):
            Loader(other).load_state_dict(state)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("world", [1, 2])
def test_workers_change_neither_the_batches_nor_the_state(workers, world):
    def read(count):
        loader = Loader(stream(Numbered(80), packing=True), Part(world - 1, world), count)
        out = []
        for batch in loader:
            out.append((numbers(batch), loader.state_dict()))
        return out

    assert read(workers) == read(0)


# ---- rows that are left out ----------------------------------------------------------------


class Odd(Numbered):
    """Every third row teaches nothing, every fifth cannot be read."""

    def __getitem__(self, index):
        if index % 5 == 4:
            raise BadRequest(f"line {index + 1}: bad JSON")
        if index % 3 == 1:
            return Conversation((Message("user", "?"), Message("assistant", "!", learn=False)))
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_without_anything_to_learn_and_unreadable_ones_are_counted(workers):
    loader = Loader(stream(Odd(60), packing=True), workers=workers)
    found = rows_of(loader)
    assert sorted(found) == [i for i in range(60) if i % 5 != 4 and i % 3 != 1]
    bad, silent = 12, sum(i % 3 == 1 and i % 5 != 4 for i in range(60))
    tally = loader.tally
    assert tally.skipped == {"cannot be read": bad, "nothing in it is learnt": silent}
    assert tally.rows == 60 and tally.used == len(found)
    assert any("bad JSON" in line for line in tally.lines())


def test_the_counts_survive_a_stop():
    loader = Loader(stream(Odd(100), packing=True))
    reading = iter(loader)
    while loader.place.window < 2:
        next(reading)
    again = Loader(stream(Odd(100), packing=True))
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    list(again), list(reading)
    assert again.tally == loader.tally and again.tally.rows == 100


def test_too_long_rows_are_counted_by_what_became_of_them():
    rows = [chat("a", "b " * 300), chat("a", "b")]
    for overlong, count in (("skip", 1), ("truncate", 2)):
        loader = Loader(stream(Listed(*rows), encode(Limits(40, overlong=overlong))))
        assert len([row for batch in loader for row in batch["input_ids"]]) == count
        text = "\n".join(loader.tally.lines())
        assert ("1 left out: longer than 40 tokens" in text) == (overlong == "skip")
        assert ("1 cut: cut to 40 tokens" in text) == (overlong == "truncate")


def test_an_epoch_without_a_row_to_train_on_ends_in_a_sentence():
    silent = Listed(*[Conversation((Message("user", "?"),))] * 40)
    for rows in (silent, Listed()):
        with pytest.raises(BadRequest, match="no row can be trained on"):
            list(Loader(stream(rows)))


def test_what_a_row_breaks_says_which_row_it_was():
    class Broken(Numbered):
        def __getitem__(self, index):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        list(Loader(stream([Source(Broken(1), name="x.jsonl")])))
    assert caught.value.__notes__ == ["in row 1 of x.jsonl"]


@pytest.mark.parametrize("text", ["a", "word ", "你好", " ", "\n"])
def test_a_row_of_a_million_characters_does_not_stall(text):
    rows = Listed(chat("?", text * (1_000_000 // len(text))), chat("0", "b"))
    began = time.perf_counter()
    loader = Loader(stream(rows, packing=True))
    assert rows_of(loader) == [0]
    assert time.perf_counter() - began < 5 and loader.tally.skipped.total() == 1


# ---- mixing --------------------------------------------------------------------------------


def test_sources_are_mixed_by_weight_evenly_throughout_the_epoch():
    order = Order([Share(4000), Share(100, 2.0), Share(1000, 0.5)], seed=1, window=256)
    counts = [Counter(source for source, _ in order.window(0, n)) for n in range(order.windows)]
    total = sum(counts, Counter())
    assert total == {0: 4000, 1: 200, 2: 500}
    for count in counts[:-1]:
        assert all(abs(count[s] - 256 * total[s] / 4700) <= 2 for s in total)


def test_half_a_weight_takes_the_other_half_in_the_next_epoch_and_two_take_each_twice():
    order = Order([Share(1001, 0.5), Share(70, 2)], window=100)
    epochs = []
    for epoch in range(2):
        rows = [row for n in range(order.windows) for row in order.window(epoch, n)]
        epochs.append(rows)
    half = [[row for source, row in rows if source == 0] for rows in epochs]
    assert len(set(half[0])) == len(half[0]) == 500 and not set(half[0]) & set(half[1])
    twice = Counter(row for source, row in epochs[0] if source == 1)
    assert set(twice) == set(range(70)) and set(twice.values()) == {2}


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_source_of_any_size_gives_each_row_once(count, shuffle):
    order = Order([Share(count), Share(3)], seed=5, window=50, shuffle=shuffle)
    for epoch in range(3):
        rows = [row for n in range(order.windows) for row in order.window(epoch, n)]
        assert sorted(rows) == [(0, i) for i in range(count)] + [(1, i) for i in range(3)]


def test_rows_that_lie_together_come_far_apart():
    order = Order([Share(100_000)], window=2048)
    firsts = [row // BLOCK for _, row in order.window(0, 0)]
    assert len(set(firsts)) >= 2048 // BLOCK and max(firsts) - min(firsts) > 1000


# ---- packing and grouping ------------------------------------------------------------------


@pytest.mark.parametrize("mean", [60, 200, 500, 900])
def test_packed_lines_are_more_than_95_percent_full(mean):
    source = random.Random(mean)
    lengths = [min(2048, max(8, int(source.lognormvariate(0, 0.6) * mean))) for _ in range(2048)]
    bins = pack(lengths, 2048)
    assert sorted(i for rows in bins for i in rows) == list(range(2048))
    assert all(sum(lengths[i] for i in rows) <= 2048 for rows in bins)
    assert fill(lengths, bins, 2048) > 0.95


def test_a_row_longer_than_a_line_is_alone_in_its_own():
    assert sorted(pack([5, 30, 5], 10)) == [[0, 2], [1]]


def test_grouping_wastes_little_on_padding():
    rows = Numbered(256, words=60)
    plan = {"size": 8, "window": 256}
    shares = []
    for grouping in (True, False):
        batches = list(Loader(stream(rows, grouping=grouping, **plan)))
        real = sum(int(batch["attention_mask"].sum()) for batch in batches)
        shares.append(real / sum(batch["input_ids"].numel() for batch in batches))
    assert shares[0] > 0.95 > shares[1]


def test_a_survey_foretells_the_batches_of_an_epoch():
    whole = stream(Numbered(200), packing=True)
    count = len(list(Loader(whole)))
    exact, guess = whole.survey(), whole.survey(most=50)
    assert exact.exact and exact.batches_of_an_epoch == count
    assert not guess.exact and abs(guess.batches_of_an_epoch - count) <= count / 5


# ---- memory --------------------------------------------------------------------------------


def anonymous():
    """Megabytes of memory that are no file."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def test_memory_does_not_grow_with_the_rows():
    try:
        anonymous()
    except (OSError, StopIteration):
        return  # only Linux says
    grown = []
    for count in (1000, 1_000_000):
        before = anonymous()
        reading = iter(Loader(stream(Numbered(count), packing=True)))
        for _ in range(5):
            next(reading)
        grown.append(anonymous() - before)
    assert grown[1] < grown[0] + 20


# ---- tensors -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_seen_by_nobody_and_learnt_by_nobody(side):
    (batch,) = Loader(stream(Numbered(4), size=4, collator=Collator(pad=9, side=side)))
    mask = batch["attention_mask"].bool()
    assert set(batch["input_ids"][~mask].tolist()) <= {9}
    assert (batch["labels"][~mask] == NOT_LEARNT).all()
    edge = mask[:, -1] if side == "left" else mask[:, 0]
    assert edge.all() and not mask.all()
    for positions, real in zip(batch["position_ids"], mask, strict=True):
        assert positions[real].tolist() == list(range(int(real.sum())))


def test_positions_begin_again_with_each_packed_row_and_its_first_token_is_no_label():
    sft = choose("alpaca-sft", small())
    every = partial(sft.encode, dialect=small(), limits=Limits(512))
    for batch in Loader(stream(Numbered(40), every, packing=True, size=2)):
        assert "attention_mask" not in batch
        start = small().start[0]
        begins = batch["input_ids"] == start
        assert (batch["position_ids"][begins] == 0).all()
        assert (batch["labels"][begins] == NOT_LEARNT).all()


def test_a_flat_batch_is_one_line_and_a_width_is_a_multiple():
    collator = Collator(flat=True, multiple=16)
    for batch in Loader(stream(Numbered(40), packing=True, size=3, collator=collator)):
        assert batch["input_ids"].shape[0] == 1 and batch["input_ids"].shape[1] % 16 == 0


def test_an_idle_batch_has_the_shape_of_a_real_one_and_nothing_to_learn():
    loaders = [Loader(stream(Numbered(5), grouping=False), Part(rank, 2)) for rank in range(2)]
    first, second = map(list, loaders)
    assert len(first) == len(second) == 3
    assert (second[-1]["labels"] == NOT_LEARNT).all()
    assert torch.equal(second[-1]["input_ids"], first[-1]["input_ids"])

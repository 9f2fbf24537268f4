"""The parts under the engine: the fair queue, the slots with their kept caches, the rows."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from glm.engines.base import Chunk, Request
from glm.messages import Sampling
from glm.scheduler.fair_queue import FairQueue
from glm.scheduler.job import Job
from glm.scheduler.rows import BLOCK, Rows
from glm.scheduler.sampler import Sampler
from glm.scheduler.slots import Slots, common

HEADS, WIDTH, LAYERS = 2, 4, 3


def job(ids: tuple[int, ...], adapter: str | None = None, stop: tuple[int, ...] = ()) -> Job:
    return Job(Request(ids, adapter=adapter, stop=stop), Sampler(Sampling(temperature=0)), 5)


def key(id: int, position: int) -> float:
    """What the pretended model computes for an id at a position."""
    return id + position / 1000


def compute(slots: Slots, one: Job) -> None:
    """Fill a job's cache up to its last id, as a prefill would."""
    rows = one.rows if one.rows is not None else slots.open(one)
    start, stop = one.filled, len(one.ids)
    rows.reserve(1, stop)
    values = [key(one.ids[i], i) for i in range(start, stop)]
    new = torch.tensor(values)[None, None, :, None].expand(1, HEADS, -1, WIDTH)
    rows.one(0, start, stop)
    for layer in range(LAYERS):
        rows.update(new, -new, layer)
    one.filled = stop


def step(slots: Slots, ids: list[int]) -> None:
    """One decode step: job i gets ids[i]."""
    for one, id in zip(slots.decoding, ids, strict=True):
        one.ids.append(id)
    positions = torch.tensor([len(one.ids) - 1 for one in slots.decoding])
    stop = int(positions.max()) + 1
    slots.batch.reserve(len(ids), stop)
    values = [key(one.ids[-1], len(one.ids) - 1) for one in slots.decoding]
    new = torch.tensor(values)[:, None, None, None].expand(-1, HEADS, 1, WIDTH)
    slots.batch.all(positions, stop)
    for layer in range(LAYERS):
        slots.batch.update(new, -new, layer)
    for one in slots.decoding:
        one.filled = len(one.ids)


def right(rows: Rows, row: int, one: Job) -> bool:
    """Whether a row holds exactly what belongs to a job's ids."""
    want = torch.tensor([key(id, i) for i, id in enumerate(one.ids[: one.filled])])
    return all(
        torch.equal(
            sign * held[row, :, : one.filled, :], want[None, :, None].expand(HEADS, -1, WIDTH)
        )
        for sign, layers in ((1, rows.keys), (-1, rows.values))
        for held in layers
    )


def all_right(slots: Slots) -> bool:
    return all(right(slots.batch, i, one) for i, one in enumerate(slots.decoding)) and all(
        right(one.rows, 0, one) for one in slots.prefilling if one.rows is not None
    )


def start(slots: Slots, one: Job) -> Job:
    slots.prefilling.append(one)
    compute(slots, one)
    slots.join(one)
    return one


# ---- the queue --------------------------------------------------------------------------------


def test_owners_take_turns_and_one_owner_is_served_in_order() -> None:
    queue: FairQueue[int] = FairQueue()
    for owner, item in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)]:
        queue.push(owner, item)
    assert len(queue) == 6
    assert [queue.pop() for _ in range(6)] == [1, 4, 5, 2, 6, 3]
    assert len(queue) == 0


def test_an_owner_that_comes_back_does_not_jump_the_queue() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "a1")
    queue.push("b", "b1")
    assert queue.pop() == "a1"
    queue.push("a", "a2")
    assert [queue.pop(), queue.pop()] == ["b1", "a2"]


def test_items_can_be_taken_out_of_the_middle() -> None:
    queue: FairQueue[int] = FairQueue()
    for item in range(6):
        queue.push("ab"[item % 2], item)
    assert queue.remove(lambda item: item in (1, 2, 3, 5)) == [2, 1, 3, 5]
    assert len(queue) == 2
    assert [queue.pop(), queue.pop()] == [0, 4]


# ---- slots ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [
        ("", "", 0),
        ("a", "", 0),
        ("a", "b", 0),
        ("abc", "abd", 2),
        ("abc", "abcd", 3),
        ("xbc", "abc", 0),
    ],
)
def test_the_common_beginning_is_counted(left: str, right: str, length: int) -> None:
    assert common(left, right) == common(right, left) == length


def test_rows_stay_right_whoever_joins_and_leaves() -> None:
    chance = random.Random(5)
    slots = Slots(5)
    for _ in range(150):
        if slots.free and chance.random() < 0.5:
            ids = tuple(chance.choices((1, 2), k=chance.randint(1, 300)))
            start(slots, job(ids))
        if slots.decoding:
            step(slots, [chance.randint(1, 2) for _ in slots.decoding])
        if slots.decoding and chance.random() < 0.3:
            slots.leave(chance.choice(slots.decoding))
        assert all_right(slots)


def test_live_and_kept_caches_are_never_more_than_the_slots() -> None:
    slots = Slots(3)
    for round in range(4):
        live = [start(slots, job((round, i, 7))) for i in range(3)]
        assert slots.forget() == 0
        for one in live:
            slots.leave(one)
        assert len(slots._kept) == 3


def test_the_longest_beginning_is_reused_and_the_last_id_is_always_new() -> None:
    slots = Slots(4)
    for ids in ((1, 2, 3, 4), (1, 2, 9), (5, 6)):
        slots.leave(start(slots, job(ids)))
    cached = {}
    for ids in ((1, 2, 3, 8), (1, 2, 9), (5, 6, 7), (4, 4)):
        one = start(slots, job(ids))
        cached[ids] = one.cached
        assert all_right(slots)
        slots.leave(one)
    assert cached == {(1, 2, 3, 8): 3, (1, 2, 9): 2, (5, 6, 7): 2, (4, 4): 0}


def test_another_adapter_shares_nothing() -> None:
    slots = Slots(4)
    slots.leave(start(slots, job((1, 2, 3), adapter="a")))
    assert start(slots, job((1, 2, 3, 4), adapter="b")).cached == 0
    assert start(slots, job((1, 2, 3, 4))).cached == 0
    assert start(slots, job((1, 2, 3, 4), adapter="a")).cached == 3


def test_a_failed_step_frees_the_slots_and_the_batch_is_not_used_again() -> None:
    slots = Slots(4)
    live = [start(slots, job((i, 1))) for i in range(3)]
    reading = job((8, 8, 8))
    slots.prefilling.append(reading)
    slots.open(reading)
    slots.drop(live)
    assert slots.decoding == []
    assert slots.batch.keys == []
    assert slots.jobs == [reading]
    slots.drop([reading])
    assert slots.free == 4


def test_caches_grow_in_blocks_with_what_is_used() -> None:
    slots = Slots(8)
    start(slots, job((1,) * 10))
    assert slots.batch.keys[0].shape == (1, HEADS, BLOCK, WIDTH)
    start(slots, job((2,) * (BLOCK + 1)))
    assert slots.batch.keys[0].shape == (2, HEADS, 2 * BLOCK, WIDTH)
    start(slots, job((3,) * 10))
    assert slots.batch.keys[0].shape == (4, HEADS, 2 * BLOCK, WIDTH)
    for one in list(slots.decoding):
        slots.leave(one)
    assert sum(kept.rows.keys[0].shape[2] for kept in slots._kept) == 4 * BLOCK
    assert slots.batch.keys == []


# ---- a job ------------------------------------------------------------------------------------


def test_a_reader_gets_ids_in_order_and_one_end() -> None:
    one = job((1, 2), stop=(9,))
    assert one.read(0) == []
    assert one.accept(5)
    assert one.accept(6)
    assert one.read(0) == [Chunk((5, 6))]
    assert not one.accept(9)
    assert not one.accept(7)
    one.finish("error", "too late")
    assert one.read(None) == [Chunk((9,), "stop")]
    assert one.read(None) == []
    assert (one.usage.prompt, one.usage.new) == (2, 3)


def test_nothing_arrives_after_close_but_what_was_there() -> None:
    one = job((1, 2))
    assert one.accept(5)
    one.cancel()
    assert not one.accept(6)
    assert one.read(None) == [Chunk((5,), "cancelled")]
    assert one.read(None) == []


def test_ids_that_follow_each_other_closely_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm.scheduler.job.MERGE", 30)
    one = job((1, 2), stop=(9,))
    assert one.accept(5)
    assert one.read(None) == [Chunk((5,))]
    assert one.accept(6)
    reader = threading.Thread(target=lambda: got.extend(one.read(20)))
    got: list[Chunk] = []
    reader.start()
    assert one.accept(7)
    assert not one.accept(9)
    reader.join(10)
    assert got == [Chunk((6, 7, 9), "stop")]


def test_an_id_reaches_every_kind_of_waiting_reader() -> None:
    one = job((1, 2))
    got: list[Chunk] = []
    readers = [threading.Thread(target=lambda: got.extend(one.read(20))) for _ in range(3)]
    for reader in readers:
        reader.start()
    assert one.accept(5)
    one.finish("cancelled")
    for reader in readers:
        reader.join(10)
    assert sorted(id for chunk in got for id in chunk.ids) == [5]
    assert [chunk.finish for chunk in got if chunk.finish] == ["cancelled"]

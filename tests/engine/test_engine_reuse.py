"""What is computed only once: the beginning of a prompt that a cache has already."""

from __future__ import annotations

import torch
from transformers import GlmForCausalLM

from glm.engines.base import Request
from glm.messages import Usage
from glm.scheduler.rows import Rows
from tests.tiny_glm import GREEDY, Make, Steps, generated, greedy, prompt, read


def test_turn_ten_computes_only_its_new_tokens_and_answers_the_same(make: Make) -> None:
    engine, plain = make(slots=3), make(slots=3, reuse=False)
    said: tuple[int, ...] = ()
    for turn in range(10):
        said += prompt(12 + turn, seed=turn)
        before = engine.computed, plain.computed
        stream, other = (e.submit(Request(said, greedy(8))) for e in (engine, plain))
        answer = read(stream).ids
        assert read(other).ids == answer
        # the last id of the answer before was delivered and not computed
        new = 12 + turn + (1 if turn else 0)
        assert engine.computed - before[0] == new
        assert stream.usage == Usage(prompt=len(said), cached=len(said) - new, new=8)
        assert plain.computed - before[1] == len(said)
        said += tuple(answer)


def test_asking_again_computes_one_token_and_the_longer_branch_stays(make: Make) -> None:
    engine = make()
    first = read(engine.submit(Request(prompt(50), GREEDY))).ids
    again = engine.submit(Request(prompt(50), GREEDY))
    assert read(again).ids == first
    assert again.usage.cached == 49
    later = engine.submit(Request((*prompt(50), *first, 5, 6), GREEDY))
    read(later)
    assert later.usage.cached == 50 + 23


def test_a_common_beginning_is_copied_from_a_busy_row_and_never_written(
    make: Make, model: GlmForCausalLM, steps: Steps
) -> None:
    system = prompt(60)
    asked = [system + prompt(5 + i, seed=i) for i in range(4)]
    want = [generated(model, ids, 24) for ids in asked]
    engine = make()
    steps.hold()
    streams = [engine.submit(Request(ids, GREEDY)) for ids in asked]
    steps.free()
    assert [read(stream).ids for stream in streams] == want
    assert [stream.usage.cached for stream in streams] == [0, 60, 60, 60]
    assert engine.computed == sum(map(len, asked)) - 3 * 60


def test_the_oldest_kept_conversation_makes_room(make: Make) -> None:
    engine = make(slots=2)
    for seed in range(4):
        read(engine.submit(Request(prompt(40, seed), GREEDY)))
    cached = []
    for seed in (3, 2, 0):
        stream = engine.submit(Request(prompt(40, seed), GREEDY))
        read(stream)
        cached.append(stream.usage.cached)
    assert cached == [39, 39, 0]


def test_a_stopped_answer_is_kept_too(make: Make, steps: Steps) -> None:
    engine = make(prefill_chunk=10)
    steps.hold()
    stream = engine.submit(Request(prompt(100), GREEDY))
    steps.allow(2)
    while len(steps.seen) < 3:
        steps.begun()
    stream.close()
    steps.free()
    again = engine.submit(Request(prompt(100), GREEDY))
    read(again)
    assert again.usage.cached == 30


def test_a_prefix_follows_its_layer_to_another_device() -> None:
    """Several cards by device map; `meta` stands for the second one."""
    rows = Rows()
    rows.begin(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    new = torch.zeros(1, 2, 2, 4, device="meta")
    keys, values = rows.one(0, 3, 5).update(new, new, 0)
    assert keys.device == values.device == new.device
    assert keys.shape == (1, 2, 5, 4)

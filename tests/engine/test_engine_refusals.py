"""What the engine refuses before it computes anything, and the queue."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from glm.engines.base import Request
from glm.errors import BadRequest, BadSampling, PromptTooLong, QueueFull
from glm.messages import Sampling
from tests.tiny_glm import CONTEXT, GREEDY, VOCABULARY, Make, Steps, greedy, prompt, read


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tokens": -1},
        {"max_tokens": 0},
        {"max_tokens": "abc"},
        {"max_tokens": 10**9},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": 1e308},
        {"top_p": 2},
        {"repetition_penalty": 0},
        {"stop": ("",)},
    ],
)
def test_a_bad_sampling_value_is_refused_and_the_next_request_works(
    make: Make, steps: Steps, bad: dict[str, Any]
) -> None:
    engine = make()
    with pytest.raises(BadSampling, match=next(iter(bad))):
        engine.submit(Request(prompt(5), Sampling(**{"max_tokens": 5, **bad})))
    assert steps.seen == []
    assert len(read(engine.submit(Request(prompt(5), GREEDY))).ids) == 24


def test_a_prompt_over_the_context_is_refused_with_both_numbers(make: Make, steps: Steps) -> None:
    engine = make()
    for size in (CONTEXT, 5000):
        with pytest.raises(PromptTooLong, match=f"{size} tokens.* holds {CONTEXT}"):
            engine.submit(Request(prompt(size), GREEDY))
    assert steps.seen == []


@pytest.mark.parametrize("ids", [(), (-1,), (5, VOCABULARY), (5, "a"), (True,), (1.0,)])
def test_a_prompt_that_is_no_prompt_is_refused(make: Make, ids: Any) -> None:
    with pytest.raises(BadRequest):
        make().submit(Request(ids, GREEDY))


def test_an_unknown_adapter_is_refused_by_name(make: Make) -> None:
    with pytest.raises(BadRequest, match="mine"):
        make().submit(Request(prompt(5), GREEDY, adapter="mine"))


def test_a_full_queue_says_when_to_try_again(make: Make, steps: Steps) -> None:
    steps.hold()
    engine = make(slots=1, queue=2)
    streams = [engine.submit(Request(prompt(5), GREEDY))]
    steps.begun()
    streams += [engine.submit(Request(prompt(6), GREEDY)) for _ in range(2)]
    with pytest.raises(QueueFull) as caught:
        engine.submit(Request(prompt(7), GREEDY))
    assert caught.value.retry_after >= 1
    steps.free()
    assert [len(read(stream).ids) for stream in streams] == [24, 24, 24]


def test_owners_take_turns_in_the_queue(make: Make, steps: Steps) -> None:
    steps.hold()
    engine = make(slots=1, reuse=False)
    first = engine.submit(Request(prompt(5), greedy(1), owner="a"))
    steps.begun()
    order = [("a", 10), ("a", 11), ("a", 12), ("b", 20), ("b", 21), ("c", 30)]
    streams = [engine.submit(Request(prompt(n), greedy(1), owner=who)) for who, n in order]
    steps.free()
    for stream in (first, *streams):
        read(stream)
    assert [positions for _, positions in steps.seen] == [5, 10, 20, 30, 11, 21, 12]


def test_a_refused_prompt_answers_in_a_tenth_of_a_second_while_a_step_runs(
    make: Make, steps: Steps
) -> None:
    steps.hold()
    engine = make()
    engine.submit(Request(prompt(5), GREEDY))
    seconds = []
    for _ in range(5):
        started = monotonic()
        with pytest.raises(PromptTooLong):
            engine.submit(Request(prompt(3000), GREEDY))
        seconds.append(monotonic() - started)
    assert min(seconds) < 0.1

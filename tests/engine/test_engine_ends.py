"""Closing, deadlines and steps that fail: every answer ends, and the engine serves on."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
import torch
from transformers import GlmForCausalLM

from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.errors import EngineError
from tests.tiny_glm import CONTEXT, GREEDY, Make, Steps, generated, greedy, prompt, read


def test_closing_during_the_prompt_computes_at_most_one_more_chunk(
    make: Make, model: GlmForCausalLM, steps: Steps
) -> None:
    want = generated(model, prompt(7), 5)
    steps.seen.clear()
    engine = make(slots=1, prefill_chunk=10)
    steps.hold()
    stream = engine.submit(Request(prompt(400), GREEDY))
    for _ in range(3):
        steps.allow()
    while len(steps.seen) < 4:
        steps.begun()
    stream.close()
    stream.close()
    assert [chunk.finish for chunk in stream.next()] == ["cancelled"]
    steps.free()
    assert read(engine.submit(Request(prompt(7), greedy(5)))).ids == want
    assert steps.seen == [(1, 10)] * 4 + [(1, 7)] + [(1, 1)] * 4


def test_closing_during_the_answer_computes_at_most_one_more_step(make: Make, steps: Steps) -> None:
    engine = make(slots=1)
    steps.hold()
    stream = engine.submit(Request(prompt(8), greedy(400)))
    steps.allow(3)
    while len(steps.seen) < 4:
        steps.begun()
    threads = [threading.Thread(target=stream.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    answer = read(stream)
    assert (len(answer.ids), answer.last.finish) == (3, "cancelled")
    steps.free()
    assert len(read(engine.submit(Request(prompt(9), greedy(2)))).ids) == 2
    assert len(steps.seen) == 4 + 2


def test_a_stream_that_nobody_holds_is_closed(make: Make, steps: Steps) -> None:
    engine = make(slots=1)
    steps.hold()
    stream = engine.submit(Request(prompt(8), greedy(400)))
    steps.begun()
    del stream
    gc.collect()
    steps.free()
    assert len(read(engine.submit(Request(prompt(9), greedy(2)))).ids) == 2
    assert steps.seen == [(1, 8), (1, 9), (1, 1)]


def test_a_waiting_request_can_be_closed(make: Make, steps: Steps) -> None:
    steps.hold()
    engine = make(slots=1)
    first = engine.submit(Request(prompt(5), greedy(2)))
    steps.begun()
    waiting = engine.submit(Request(prompt(50), GREEDY))
    waiting.close()
    steps.free()
    assert read(waiting).last.finish == "cancelled"
    assert len(read(first).ids) == 2
    assert (1, 50) not in steps.seen


def test_a_deadline_ends_waiting_and_running_answers_with_a_sentence(
    make: Make, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("glm.scheduler.job.monotonic", lambda: now[0])
    steps.hold()
    engine = make(slots=1)
    running = engine.submit(Request(prompt(5), greedy(400), deadline=110.0))
    waiting = engine.submit(Request(prompt(50), greedy(400), deadline=105.0))
    steps.allow(3)
    while len(steps.seen) < 4:
        steps.begun()
    now[0] = 111.0
    steps.free()
    answers = [read(running), read(waiting)]
    assert [answer.last.finish for answer in answers] == ["cancelled", "cancelled"]
    assert all("time limit" in answer.last.error for answer in answers)
    assert [len(answer.ids) for answer in answers] == [4, 0]
    assert (1, 50) not in steps.seen


def test_closing_the_engine_ends_open_streams_and_refuses_new_ones(
    make: Make, steps: Steps
) -> None:
    steps.hold()
    engine = make(slots=1)
    streams = [engine.submit(Request(prompt(n), greedy(400))) for n in (5, 6)]
    steps.begun()
    closer = threading.Thread(target=engine.close)
    closer.start()
    steps.free()
    answers = [read(stream) for stream in streams]
    assert [answer.last.finish for answer in answers] == ["error", "error"]
    assert all("closed" in answer.last.error for answer in answers)
    closer.join(10)
    assert not closer.is_alive()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(Request(prompt(5), GREEDY))


def test_an_engine_that_nobody_holds_ends_its_thread(model: GlmForCausalLM) -> None:
    engine = LocalEngine(model, context=CONTEXT)
    read(engine.submit(Request(prompt(5), GREEDY)))
    thread = engine._scheduler._thread
    del engine
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_a_failing_chunk_ends_its_request_and_no_other(
    make: Make, model: GlmForCausalLM, steps: Steps
) -> None:
    want = generated(model, prompt(5), 24)
    steps.seen.clear()
    engine = make()
    steps.hold()
    good = engine.submit(Request(prompt(5), GREEDY))
    steps.begun()
    bad = engine.submit(Request(prompt(30), GREEDY))
    steps.errors = [None, None, RuntimeError("shape mismatch\nsecret path")]
    steps.free()
    answer = read(bad, timeout=1)
    assert answer.last.finish == "error"
    assert "RuntimeError: shape mismatch" in answer.last.error
    assert "secret" not in answer.last.error
    assert read(good).ids == want


def test_a_failing_step_ends_its_answers_and_the_engine_serves_on(
    make: Make, model: GlmForCausalLM, steps: Steps
) -> None:
    want = generated(model, prompt(11), 24)
    engine = make()
    streams = [engine.submit(Request(prompt(n), greedy(400))) for n in (5, 6, 7)]
    for stream in streams:
        assert stream.next(20)
    steps.errors = [ValueError("boom")]
    answers = [read(stream, timeout=1) for stream in streams]
    assert {answer.last.finish for answer in answers} == {"error"}
    assert all("ValueError: boom" in answer.last.error for answer in answers)
    for _ in range(2):
        assert read(engine.submit(Request(prompt(11), GREEDY))).ids == want


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("... out of memory"),
    ],
)
def test_full_memory_has_a_sentence_of_its_own(make: Make, steps: Steps, error: Exception) -> None:
    engine = make()
    steps.errors = [error]
    answer = read(engine.submit(Request(prompt(5), GREEDY)))
    assert answer.last.finish == "error"
    assert answer.last.error.startswith("the memory is full; shorten the conversation")
    assert len(read(engine.submit(Request(prompt(5), GREEDY))).ids) == 24


def test_kept_caches_are_given_up_before_an_answer_is(
    make: Make, model: GlmForCausalLM, steps: Steps
) -> None:
    want = generated(model, prompt(11), 24)
    steps.seen.clear()
    engine = make()
    read(engine.submit(Request(prompt(20), GREEDY)))
    steps.errors = [None, None, MemoryError()]
    assert read(engine.submit(Request(prompt(11), GREEDY))).ids == want
    again = engine.submit(Request(prompt(20), GREEDY))
    read(again)
    assert again.usage.cached == 0


def test_damaged_weights_give_a_sentence_not_an_answer(make: Make, model: GlmForCausalLM) -> None:
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    answer = read(make().submit(Request(prompt(5), GREEDY)))
    assert (answer.ids, answer.last.finish) == ([], "error")
    assert "no finite number" in answer.last.error


def test_a_row_that_computes_no_number_ends_alone_and_leaves_nothing_behind(
    make: Make, model: GlmForCausalLM, steps: Steps
) -> None:
    """As an adapter whose numbers overflow: the others go on, so does who has its row next."""
    want = [generated(model, prompt(size), 48) for size in (100, 8)]
    broken: list[bool] = []

    def breaks(_: Any, __: Any, output: torch.Tensor) -> None:
        if len(output) == 2 and not broken:
            broken.append(True)
            output[1] = float("nan")

    model.model.layers[0].self_attn.v_proj.register_forward_hook(breaks)
    engine = make()
    steps.hold()
    streams = [engine.submit(Request(prompt(size), greedy(48))) for size in (100, 90)]
    steps.free()
    answer = read(streams.pop())
    assert answer.last.finish == "error" and "no finite number" in answer.last.error
    streams.append(engine.submit(Request(prompt(8), greedy(48))))
    assert [read(stream).ids for stream in streams] == want
    again = engine.submit(Request(prompt(90), greedy(48)))
    assert read(again).ids == generated(model, prompt(90), 48)
    assert again.usage.cached == 0

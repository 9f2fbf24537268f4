"""The engine on a real (tiny, random) model: equal answers, refusals, closing, failures."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import GlmForCausalLM

from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.errors import BadRequest, BadSampling, EngineError, PromptTooLong, QueueFull
from glm.messages import Sampling, Usage
from tests.shared_files import CHATGLM3_TOKENIZER, GOLDEN
from tests.tiny_glm import CONTEXT, VOCABULARY, Steps, generated, prompt, read, tiny_glm

Make = Callable[..., LocalEngine]
GREEDY = Sampling(temperature=0, max_tokens=24)


@pytest.fixture
def model() -> GlmForCausalLM:
    return tiny_glm()


@pytest.fixture
def steps(model: GlmForCausalLM) -> Iterator[Steps]:
    watch = Steps(model)
    yield watch
    watch.free()


@pytest.fixture
def make(model: GlmForCausalLM, steps: Steps) -> Iterator[Make]:
    """Engines over `model` that are closed after the test."""
    made: list[LocalEngine] = []

    def engine(**limits: Any) -> LocalEngine:
        made.append(LocalEngine(model, context=CONTEXT, **limits))
        return made[-1]

    yield engine
    steps.free()
    for one in made:
        one.close()


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


# ---- the same answers -------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7, 16, 17, 100, 256, 300])
def test_an_answer_equals_generate_whatever_the_chunks(
    make: Make, model: GlmForCausalLM, length: int
) -> None:
    want = generated(model, prompt(length), 24)
    for chunk in (1, 16, 256):
        engine = make(prefill_chunk=chunk)
        answer = read(engine.submit(Request(prompt(length), GREEDY)))
        assert answer.ids == want
        assert answer.last.finish == "length"


def test_requests_of_all_lengths_and_ages_share_steps_and_equal_generate(
    make: Make, model: GlmForCausalLM, steps: Steps
) -> None:
    engine = make(slots=5, prefill_chunk=32)
    asked = [(prompt(3 + 13 * i, seed=i), 4 + 3 * (i % 7)) for i in range(20)]
    want = [generated(model, ids, count) for ids, count in asked]
    steps.seen.clear()
    streams = [
        engine.submit(Request(ids, greedy(count), owner=str(i % 3)))
        for i, (ids, count) in enumerate(asked)
    ]
    assert [read(stream).ids for stream in streams] == want
    assert max(rows for rows, _ in steps.seen) == 5
    assert max(positions for _, positions in steps.seen) <= 32


def test_twenty_threads_each_get_their_own_sampled_answer(make: Make) -> None:
    engine = make(slots=6)
    requests = [
        Request(prompt(5 + i, seed=i), Sampling(temperature=1, top_p=0.9, max_tokens=15, seed=i))
        for i in range(20)
    ]
    alone = [read(engine.submit(request)).ids for request in requests]
    together: dict[int, list[int]] = {}

    def ask(i: int) -> None:
        together[i] = read(engine.submit(requests[i])).ids

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [together[i] for i in range(20)] == alone


def test_a_repetition_penalty_equals_generate(make: Make, model: GlmForCausalLM) -> None:
    engine = make()
    sampling = Sampling(temperature=0, max_tokens=40, repetition_penalty=1.3)
    want = generated(model, prompt(12), 40, repetition_penalty=1.3)
    other = engine.submit(Request(prompt(30), GREEDY))
    assert read(engine.submit(Request(prompt(12), sampling))).ids == want
    assert read(other).ids == generated(model, prompt(30), 24)


def test_eager_attention_gives_the_same_answers(make: Make, model: GlmForCausalLM) -> None:
    want = [generated(model, prompt(n), 24) for n in (40, 9)]
    model.set_attn_implementation("eager")
    engine = make(prefill_chunk=16)
    streams = [engine.submit(Request(prompt(n), GREEDY)) for n in (40, 9)]
    assert [read(stream).ids for stream in streams] == want


def test_half_precision_answers(model: GlmForCausalLM) -> None:
    engine = LocalEngine(model.to(torch.bfloat16), context=CONTEXT)
    streams = [engine.submit(Request(prompt(n), GREEDY)) for n in (40, 9)]
    assert [len(read(stream).ids) for stream in streams] == [24, 24]
    engine.close()


@pytest.mark.parametrize(
    "name", ["chatglm3", "chatglm3-32k", "chatglm3-bin-fp16"] if GOLDEN.exists() else []
)
def test_greedy_ids_equal_the_official_code(name: str) -> None:
    from safetensors.torch import load_file

    from glm.load import load_model
    from glm.recognise import recognise

    expected = load_file(GOLDEN / "models" / "expected" / f"{name}.safetensors")
    model = load_model(recognise(GOLDEN / "models" / name, CHATGLM3_TOKENIZER), "cpu", "float32")
    engine = LocalEngine(model, context=256, prefill_chunk=8)
    ids = tuple(expected["input_ids"][0].tolist())
    want = expected["greedy_ids"].flatten().tolist()[-24:]
    batch = zip(expected["batch_input_ids"], expected["batch_attention_mask"], strict=True)
    rows = [tuple(row[mask.bool()].tolist()) for row, mask in batch]
    streams = [engine.submit(Request(one, GREEDY)) for one in (ids, *rows)]
    first, *others = (read(stream).ids for stream in streams)
    assert first == want
    assert others == expected["batch_greedy_ids"][:, -24:].tolist()
    engine.close()


# ---- the end of an answer ---------------------------------------------------------------------


def test_a_stop_id_is_the_last_id(make: Make, model: GlmForCausalLM) -> None:
    whole = generated(model, prompt(9), 24)
    stop = whole[10]
    stream = make().submit(Request(prompt(9), GREEDY, stop=(1, stop)))
    answer = read(stream)
    assert answer.ids == whole[: whole.index(stop) + 1]
    assert answer.last.finish == "stop"
    assert stream.usage == Usage(prompt=9, cached=0, new=len(answer.ids))
    assert stream.next(0) == []
    assert stream.next() == []


def test_the_answer_ends_where_the_context_ends(make: Make) -> None:
    answer = read(make().submit(Request(prompt(CONTEXT - 3), greedy(CONTEXT))))
    assert (len(answer.ids), answer.last.finish) == (3, "length")


def test_next_returns_nothing_on_timeout(make: Make, steps: Steps) -> None:
    steps.hold()
    stream = make().submit(Request(prompt(5), GREEDY))
    assert stream.next(0.01) == []
    steps.free()
    assert len(read(stream).ids) == 24


# ---- refused before anything is computed -------------------------------------------------------


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


# ---- closing, deadlines -----------------------------------------------------------------------


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
    monkeypatch.setattr("glm.job.monotonic", lambda: now[0])
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


# ---- a step that fails ------------------------------------------------------------------------


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


# ---- constraints ------------------------------------------------------------------------------


class Only:
    """Allows one id after the other, then nothing."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.accepted = ids, []

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        out = torch.full_like(logits, float("-inf"))
        left = self.ids[len(self.accepted) : len(self.accepted) + 1]
        out[left] = logits[left]
        return out

    def accept(self, id: int) -> None:
        self.accepted.append(id)


def test_a_constraint_decides_what_can_follow(make: Make, model: GlmForCausalLM) -> None:
    want = generated(model, prompt(9), 24)
    engine = make()
    for temperature in (0, 2):
        only = Only([7, 8, 9, 2])
        sampling = Sampling(temperature=temperature, max_tokens=24)
        free = engine.submit(Request(prompt(9), GREEDY))
        bound = engine.submit(Request(prompt(5), sampling, stop=(2,), constraint=only))
        assert read(bound).ids == [7, 8, 9, 2] == only.accepted
        assert read(free).ids == want


def test_a_constraint_that_allows_nothing_or_raises_ends_only_its_answer(
    make: Make, model: GlmForCausalLM
) -> None:
    class Broken(Only):
        def mask(self, logits: torch.Tensor) -> torch.Tensor:
            if len(self.accepted) == 2:
                raise KeyError("state")
            return super().mask(logits)

    want = generated(model, prompt(9), 24)
    engine = make()
    free = engine.submit(Request(prompt(9), GREEDY))
    bound = [
        engine.submit(Request(prompt(5), GREEDY, constraint=only))
        for only in (Only([7, 8]), Broken([7, 8, 9]))
    ]
    answers = [read(stream) for stream in bound]
    assert [answer.ids for answer in answers] == [[7, 8], [7, 8]]
    assert "allows no token" in answers[0].last.error
    assert "constraint failed (KeyError" in answers[1].last.error
    assert read(free).ids == want


# ---- what is computed only once ---------------------------------------------------------------


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


def test_a_refused_prompt_answers_in_a_tenth_of_a_second_while_a_step_runs(
    make: Make, steps: Steps
) -> None:
    steps.hold()
    engine = make()
    engine.submit(Request(prompt(5), GREEDY))
    started = time.monotonic()
    with pytest.raises(PromptTooLong):
        engine.submit(Request(prompt(3000), GREEDY))
    assert time.monotonic() - started < 0.1

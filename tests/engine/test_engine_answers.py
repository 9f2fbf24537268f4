"""Answers of the engine equal those of transformers' generate(), alone or in company."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from transformers import GlmForCausalLM

from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.messages import Sampling, Usage
from tests.shared_files import CHATGLM3_TOKENIZER, GOLDEN
from tests.tiny_glm import CONTEXT, GREEDY, Make, Steps, generated, greedy, prompt, read


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


def test_a_large_model_gets_all_threads_after_a_small_one_had_one(
    make: Make, model: GlmForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glm.engines.local.THREADS", 3)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    read(make().submit(Request(prompt(5), greedy(1))))
    monkeypatch.setattr("glm.engines.local.SMALL", 0)
    read(make().submit(Request(prompt(5), greedy(1))))
    read(make(threads=2).submit(Request(prompt(5), greedy(1))))
    assert seen == [1, 3, 2]


def test_half_precision_answers(model: GlmForCausalLM) -> None:
    engine = LocalEngine(model.to(torch.bfloat16), context=CONTEXT)
    streams = [engine.submit(Request(prompt(n), GREEDY)) for n in (40, 9)]
    assert [len(read(stream).ids) for stream in streams] == [24, 24]
    engine.close()


OFFICIAL = ("chatglm3", "chatglm3-32k", "chatglm3-bin-fp16") if GOLDEN.exists() else ()


def test_greedy_ids_equal_the_official_code() -> None:
    from safetensors.torch import load_file

    from glm.checkpoint.recognise import recognise
    from glm.load import load_model

    for name in OFFICIAL:
        expected = load_file(GOLDEN / "models" / "expected" / f"{name}.safetensors")
        model = load_model(
            recognise(GOLDEN / "models" / name, CHATGLM3_TOKENIZER), "cpu", "float32"
        )
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


class Only:
    """Allows one id after the other, then nothing."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.accepted = ids, []

    def fill(self, bits: np.ndarray) -> None:
        bits.fill(0)
        for id in self.ids[len(self.accepted) : len(self.accepted) + 1]:
            bits[id // 32] = 1 << id % 32

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
        def fill(self, bits: np.ndarray) -> None:
            if len(self.accepted) == 2:
                raise KeyError("state")
            super().fill(bits)

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

"""ChatGLM-6B (v1) in the engine: prompts read in both directions, in one step with others."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file

from glm.adapters.opening import open_adapter
from glm.adapters.values import Adapter, AdapterInfo, Prefix
from glm.checkpoint.recognise import ModelInfo
from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.models.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM
from tests.shared_files import GOLDEN
from tests.tiny_chatglm1 import GMASK, SOP, tiny_chatglm1
from tests.tiny_glm import greedy, read

NEW = 16


@pytest.fixture(scope="module")
def model() -> ChatGLM1ForCausalLM:
    model = tiny_chatglm1(max_sequence_length=256)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:  # so that answers vary with the prompt
                weight.normal_(0, 0.5)
    return model


@pytest.fixture
def engine(model: ChatGLM1ForCausalLM) -> Iterator[LocalEngine]:
    made = LocalEngine(model, context=256, prefill_chunk=8)
    yield made
    made.close()


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return (*torch.randint(4, 50, (length,), generator=generator).tolist(), GMASK, SOP)


def generated(model: ChatGLM1ForCausalLM, ids: tuple[int, ...]) -> list[int]:
    given = torch.tensor([ids])
    out = model.generate(given, max_new_tokens=NEW, do_sample=False, eos_token_id=None)
    return out[0, len(ids) :].tolist()


def test_prompts_of_different_length_share_steps_and_answer_as_generate(engine, model):
    asked = [prompt(5 + 9 * i, seed=i) for i in range(6)]
    want = [generated(model, ids) for ids in asked]
    assert len({tuple(ids) for ids in want}) == 6
    streams = [engine.submit(Request(ids, greedy(NEW))) for ids in asked]
    assert [read(stream).ids for stream in streams] == want


def test_a_cache_serves_the_same_prompt_and_no_other(engine, model):
    first = read(engine.submit(Request(prompt(30), greedy(NEW)))).ids
    again = engine.submit(Request(prompt(30), greedy(NEW)))
    assert read(again).ids == first
    assert again.usage.cached == 31
    longer = (*prompt(30)[:-2], 7, 8, GMASK, SOP)
    other = engine.submit(Request(longer, greedy(NEW)))
    assert read(other).ids == generated(model, longer)
    assert other.usage.cached == 0


def test_a_prefix_is_seen_by_all_and_moves_nothing(engine, model):
    generator = torch.Generator().manual_seed(1)
    keys, values = (torch.randn((2, 2, 6, 16), generator=generator) * 2 for _ in range(2))
    one = Adapter(AdapterInfo("p", None, "P-Tuning v2"), prefix=Prefix(keys, values))
    engine.add_adapter("p", one)
    alone = [
        read(engine.submit(Request(prompt(n, n), greedy(NEW), adapter="p"))).ids for n in (9, 20)
    ]
    mixed = [
        engine.submit(Request(prompt(n, n), greedy(NEW), adapter=key))
        for n, key in ((9, "p"), (20, None), (20, "p"))
    ]
    assert [read(s).ids for s in mixed] == [alone[0], generated(model, prompt(20, 20)), alone[1]]
    assert alone[1] != generated(model, prompt(20, 20))


def test_the_golden_model_and_its_prefix_answer_as_the_official_code(tmp_path):
    if not GOLDEN.exists():
        return
    models = GOLDEN / "models"
    config = ChatGLM1Config.from_dict(json.loads((models / "chatglm-6b/config.json").read_text()))
    model = ChatGLM1ForCausalLM.from_pretrained(models / "chatglm-6b", config=config).float()
    engine = LocalEngine(model, context=2048)
    info = ModelInfo(*["chatglm-6b"] * 3, models, 2048, 0, tmp_path, (), {}, "")
    one = open_adapter(models / "chatglm-6b-ptuning", info, engine.config)
    engine.add_adapter("p", one)
    for name, key in (("chatglm-6b", None), ("chatglm-6b-ptuning", "p")):
        values = load_file(models / "expected" / f"{name}.safetensors")
        ids = values["greedy_ids"].flatten().tolist()  # 22 given, 20 new
        stream = engine.submit(Request(tuple(ids[:22]), greedy(20), adapter=key))
        assert read(stream).ids == ids[22:]
    engine.close()

"""Adapters in an engine: each answers as its merged model would, whoever shares its step."""

from __future__ import annotations

import gc

import pytest
import torch
from transformers import DynamicCache, GlmForCausalLM

from glm.adapters.values import Adapter, AdapterInfo, LoraPart, Prefix
from glm.engines.base import Request
from glm.errors import AdapterGone, BadRequest
from tests.tiny_glm import GREEDY, Make, Steps, generated, prompt, read, tiny_glm

MODULES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_up_proj")


def adapter(**about) -> Adapter:
    return Adapter(AdapterInfo("a", None, "LoRA"), **about)


def lora(model: GlmForCausalLM, seed: int, rank: int = 4, dora: bool = False, modules=MODULES):
    """A random LoRA strong enough to change answers."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for layer in range(model.config.num_hidden_layers):
        for module in modules:
            name = f"model.layers.{layer}.{module}"
            linear = model.get_submodule(name)
            a = torch.randn(rank, linear.in_features, generator=generator) * 0.2
            b = torch.randn(linear.out_features, rank, generator=generator) * 0.2
            lengths = linear.weight.norm(dim=1) * (
                0.5 + torch.rand(linear.out_features, generator=generator)
            )
            parts[name] = LoraPart(a, b, 2.0, lengths.detach() if dora else None)
    return adapter(lora=parts)


def prefix(model: GlmForCausalLM, seed: int, tokens: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    shape = (config.num_hidden_layers, config.num_key_value_heads, tokens, config.head_dim)
    keys, values = (torch.randn(shape, generator=generator) * 2 for _ in range(2))
    return adapter(prefix=Prefix(keys, values))


def merged(one: Adapter) -> GlmForCausalLM:
    """The model once more, with the adapter in its weights."""
    model = tiny_glm()
    with torch.no_grad():
        for name, part in one.lora.items():
            weight = model.get_submodule(name).weight
            weight += part.scale * part.b @ part.a
            if part.magnitude is not None:
                weight *= (part.magnitude / weight.norm(dim=1))[:, None]
    return model


def after_prefix(model: GlmForCausalLM, one: Adapter, ids, count: int) -> list[int]:
    """The greedy answer after a prefix, by the model's own classes and explicit positions."""
    cache = DynamicCache(config=model.config)
    for layer, (k, v) in enumerate(zip(one.prefix.keys, one.prefix.values, strict=True)):
        cache.update(k[None].clone(), v[None].clone(), layer)
    out, given = [], list(ids)
    at = 0
    with torch.inference_mode():
        for _ in range(count):
            place = torch.arange(at, at + len(given))[None]
            step = model(input_ids=torch.tensor([given]), position_ids=place, past_key_values=cache)
            at += len(given)
            given = [int(step.logits[0, -1].argmax())]
            out += given
    return out


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_an_adapter_answers_as_its_merged_model(make: Make, model: GlmForCausalLM, dora: bool):
    one = lora(model, 1, dora=dora)
    want = generated(merged(one), prompt(30), 24)
    plain = generated(tiny_glm(), prompt(30), 24)
    engine = make()
    engine.add_adapter("one", one)
    assert read(engine.submit(Request(prompt(30), GREEDY, adapter="one"))).ids == want
    assert read(engine.submit(Request(prompt(30), GREEDY))).ids == plain != want


def test_a_prefix_stands_before_the_prompt_and_moves_no_position(make: Make, model: GlmForCausalLM):
    one = prefix(model, 2, 7)
    want = after_prefix(tiny_glm(), one, prompt(40), 24)
    engine = make(prefill_chunk=16)
    engine.add_adapter("p", one)
    assert read(engine.submit(Request(prompt(40), GREEDY, adapter="p"))).ids == want
    assert want != generated(tiny_glm(), prompt(40), 24)


def test_a_batch_mixes_none_loras_and_prefixes_and_each_row_is_its_own_answer(
    make: Make, model: GlmForCausalLM, steps: Steps
):
    base = tiny_glm()
    made = {
        "a": lora(model, 1),
        "b": lora(model, 2, rank=11),
        "d": lora(model, 3, dora=True, modules=("self_attn.k_proj", "mlp.down_proj")),
        "p": prefix(model, 4, 3),
        "q": prefix(model, 5, 20),
    }
    asked = [None, "a", "b", "d", "p", "q", "a+q", "a"]
    prompts = [prompt(10 + 7 * i, seed=i) for i in range(len(asked))]
    want = []
    for key, ids in zip(asked, prompts, strict=True):
        names = (key or "").split("+")
        loras = [made[n] for n in names if n and made[n].lora]
        ones = [made[n] for n in names if n and made[n].prefix]
        whole = merged(loras[0]) if loras else base
        want.append(after_prefix(whole, ones[0], ids, 24) if ones else generated(whole, ids, 24))
    engine = make()
    for key, one in made.items():
        engine.add_adapter(key, one)
    steps.hold()
    streams = [
        engine.submit(Request(ids, GREEDY, adapter=key))
        for key, ids in zip(asked, prompts, strict=True)
    ]
    steps.free()
    assert [read(stream).ids for stream in streams] == want
    assert max(rows for rows, _ in steps.seen) == 8


def test_a_cache_is_used_again_only_under_the_same_adapter(make: Make, model: GlmForCausalLM):
    engine = make()
    engine.add_adapter("a", lora(model, 1))
    engine.add_adapter("p", prefix(model, 2, 5))
    for key in (None, "a", "p", "a+p"):
        first = engine.submit(Request(prompt(30), GREEDY, adapter=key))
        said = read(first).ids
        assert first.usage.cached == 0
        again = engine.submit(Request((*prompt(30), *said, 5), GREEDY, adapter=key))
        read(again)
        assert again.usage.cached == 30 + 23


def test_a_conversation_with_a_prefix_goes_on_from_its_cache(make: Make, model: GlmForCausalLM):
    one = prefix(model, 3, 9)
    engine, base = make(), tiny_glm()
    engine.add_adapter("p", one)
    said: tuple[int, ...] = ()
    for turn in range(4):
        said += prompt(9, seed=turn)
        answer = read(engine.submit(Request(said, GREEDY, adapter="p"))).ids
        assert answer == after_prefix(base, one, said, 24)
        said += tuple(answer)


def test_a_removed_adapter_answers_to_the_end_and_its_row_is_used_again(
    make: Make, model: GlmForCausalLM, steps: Steps
):
    one, two = lora(model, 1), lora(model, 2, modules=MODULES[:1])
    want = [generated(merged(each), prompt(20), 24) for each in (one, two)]
    engine = make()
    engine.add_adapter("one", one)
    steps.hold()
    stream = engine.submit(Request(prompt(20), GREEDY, adapter="one"))
    steps.begun()
    engine.remove_adapter("one")
    with pytest.raises(AdapterGone, match="one"):
        engine.submit(Request(prompt(20), GREEDY, adapter="one"))
    engine.add_adapter("two", two)  # while the first is still in use
    steps.free()
    assert read(stream).ids == want[0]
    del stream
    read(engine.submit(Request(prompt(5), GREEDY)))  # the worker lets go of the job before
    gc.collect()
    used = engine.adapter_bytes
    engine.remove_adapter("two")
    engine.add_adapter("three", two)
    assert read(engine.submit(Request(prompt(20), GREEDY, adapter="three"))).ids == want[1]
    assert engine.adapter_bytes == used


def test_what_does_not_fit_the_model_is_refused_by_name(make: Make, model: GlmForCausalLM):
    engine = make()
    part = LoraPart(torch.zeros(4, 65), torch.zeros(64, 4), 1.0)
    with pytest.raises(BadRequest, match=r"q_proj is 64 x 65 and the model's 64 x 64"):
        engine.add_adapter("a", adapter(lora={"model.layers.0.self_attn.q_proj": part}))
    with pytest.raises(BadRequest, match="no module 'model.layers.9"):
        engine.add_adapter("a", adapter(lora={"model.layers.9.self_attn.q_proj": part}))
    wrong = Prefix(torch.zeros(3, 2, 5, 16), torch.zeros(3, 2, 5, 16))
    with pytest.raises(BadRequest, match="prefix has 3 layers"):
        engine.add_adapter("p", adapter(prefix=wrong))
    engine.add_adapter("a", lora(model, 1))
    engine.add_adapter("b", lora(model, 2))
    with pytest.raises(BadRequest, match="two LoRAs cannot answer together"):
        engine.submit(Request(prompt(5), GREEDY, adapter="a+b"))
    assert read(engine.submit(Request(prompt(30), GREEDY))).ids == generated(
        tiny_glm(), prompt(30), 24
    )

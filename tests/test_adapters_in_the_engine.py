"""Adapters from their files to answers: the golden ones, and two that were taught a greeting."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from glm.adapters.opening import open_adapter
from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.engines.base import Request, tokens
from glm.engines.local import LocalEngine
from glm.errors import AlphaNeeded
from glm.load import load_model
from glm.manager import Manager
from glm.messages import Conversation, Finish, Message, Sampling
from tests.shared_files import CHATGLM3_TOKENIZER, GOLDEN
from tests.taught import teach_lora, teach_prefix

LORAS = ("lora-qkv", "lora-all-rslora", "lora-dora", "lora-compiled", "lora-pt")
PREFIXES = ("ptuning", "ptuning-projection")
ALPHA = {"lora-pt": 32.0}  # not in the file; see the README of the golden values
GREEDY = Sampling(temperature=0, max_tokens=24)


def read(stream) -> list[int]:
    ids: list[int] = []
    while chunks := stream.next(60):
        assert not chunks[-1].error
        ids += tokens(chunks)
    return ids


def test_every_golden_adapter_answers_as_the_official_code_all_in_one_batch(tmp_path):
    if not GOLDEN.exists():
        return
    models = GOLDEN / "models"
    info = recognise(models / "chatglm3", CHATGLM3_TOKENIZER)
    engine = LocalEngine(load_model(info, "cpu", "float32"), context=info.context)
    want, asked = {}, []
    for name in (*LORAS, *PREFIXES):
        memory = tmp_path / "alphas.json"
        one = open_adapter(models / name, info, engine.config, ALPHA.get(name), memory)
        engine.add_adapter(name, one)
        values = load_file(models / "expected" / f"{name}.safetensors")
        ids = values["input_ids"].flatten().tolist()
        want[name] = values["greedy_ids"].flatten().tolist()[len(ids) :]
        asked.append((name, Request(tuple(ids), GREEDY, adapter=name)))
    base = load_file(models / "expected" / "chatglm3.safetensors")
    ids = base["input_ids"].flatten().tolist()
    want["base"] = base["greedy_ids"].flatten().tolist()[len(ids) :]
    asked.append(("base", Request(tuple(ids), GREEDY)))
    streams = [(name, engine.submit(request)) for name, request in asked]
    assert {name: read(stream) for name, stream in streams} == want
    engine.close()


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    teach_lora(folder / "sailor", "Ahoy, sailor!")
    teach_prefix(folder / "french", "Bonjour!")
    return folder


def said(manager: Manager, model: str) -> str:
    hello = Conversation((Message("user", "hello"),))
    stream = manager.chat(hello, Sampling(temperature=0, max_tokens=40), model=model)
    return next(e.message.content for e in stream if isinstance(e, Finish))


def test_the_embedded_model_swaps_between_a_lora_and_a_prefix_in_the_official_layouts(taught):
    manager = Manager(EMBEDDED)
    manager.open(EMBEDDED)
    plain = said(manager, "base")
    lora = manager.add_adapter(taught / "sailor")
    prefix = manager.add_adapter(taught / "french")
    assert lora.info and (lora.info.kind, lora.info.rank) == ("LoRA", 4)
    assert prefix.info and (prefix.info.kind, prefix.info.tokens) == ("P-Tuning v2", 8)
    for _ in range(2):
        assert said(manager, "base:sailor") == "Ahoy, sailor!"
        assert said(manager, "base:french") == "Bonjour!"
        assert said(manager, "base") == plain
    assert said(manager, "base:sailor+french")
    manager.close()


def test_a_bare_file_asks_for_alpha_once_and_answers(tmp_path, taught):
    state = load_file(taught / "sailor" / "adapter_model.safetensors")
    file = tmp_path / "chatglm-lora.pt"
    torch.save({name.replace(".weight", ".default.weight"): t for name, t in state.items()}, file)
    manager = Manager(EMBEDDED, data=tmp_path / "data")
    manager.open(EMBEDDED)
    with pytest.raises(AlphaNeeded) as needed:
        manager.add_adapter(file, "old")
    assert needed.value.rank == 4
    manager.add_adapter(file, "old", alpha=4)
    assert said(manager, "base:old") == "Ahoy, sailor!"
    manager.close()
    again = Manager(EMBEDDED, data=tmp_path / "data")
    again.open(EMBEDDED)
    assert again.models() == ["base", "base:old"]
    assert said(again, "base:old") == "Ahoy, sailor!"
    again.close()

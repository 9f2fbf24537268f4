"""A base and its adapters, addressed by name, while several people use them."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest
import torch

from glm import manager as managers
from glm.adapters.values import Adapter, AdapterInfo, LoraPart
from glm.chat import Options
from glm.errors import BadRequest, CheckpointError, NotReady
from glm.manager import Manager
from glm.messages import Conversation, Finish, Message, Sampling
from tests.tiny_checkpoint import CONFIG, write_checkpoint

ASK = Conversation((Message("user", "hi"),))
GREEDY = Sampling(temperature=0, max_tokens=12)


def strong(name: str, path: Path) -> Adapter:
    """An update so large that the answer is another one; a name, a direction."""
    torch.manual_seed(sum(map(ord, name)))
    heads = CONFIG["num_attention_heads"] * CONFIG["kv_channels"]
    part = LoraPart(torch.randn(4, CONFIG["hidden_size"]), torch.randn(heads, 4), 1.0)
    parts = {f"model.layers.{i}.self_attn.q_proj": part for i in range(CONFIG["num_layers"])}
    mlp = LoraPart(
        torch.randn(4, CONFIG["ffn_hidden_size"]), torch.randn(CONFIG["hidden_size"], 4), 1.0
    )
    parts |= {f"model.layers.{i}.mlp.down_proj": mlp for i in range(CONFIG["num_layers"])}
    return Adapter(AdapterInfo(name, path, "LoRA", 4, bytes=1000), parts)


@pytest.fixture
def read(monkeypatch):
    """Every existing folder is an adapter."""
    seen: list[Path] = []

    def reader(info, engine, path, alpha):
        if not path.exists():
            raise CheckpointError(f"no adapter at {path}")
        seen.append(path)
        return strong(path.name, path)

    monkeypatch.setattr(managers, "read_adapter", reader)
    return seen


@pytest.fixture
def base(tmp_path):
    return write_checkpoint(tmp_path / "model", vocabulary=66000)


@pytest.fixture
def one(base, tmp_path, read):
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
    manager = Manager(base, data=tmp_path / "data")
    manager.open(base)
    yield manager
    manager.close()


def said(manager: Manager, model: str = "base") -> tuple[int, ...]:
    stream = manager.chat(ASK, GREEDY, model=model)
    end = next(event for event in stream if isinstance(event, Finish))
    list(stream)
    assert not end.error
    return tuple(stream.produced)


def test_each_adapter_answers_in_its_own_way_and_the_base_stays_the_base(one, tmp_path):
    plain = said(one)
    for name in ("red", "blue"):
        one.add_adapter(tmp_path / name)
    assert one.models() == ["base", "base:blue", "base:red"]
    answers = [said(one, model) for model in one.models()]
    assert len(set(answers)) == 3
    assert answers[0] == plain == said(one)
    assert said(one, "base:red") == answers[2]


def test_an_address_comes_from_the_list_only(one, tmp_path):
    one.add_adapter(tmp_path / "red")
    for model in ("red", "base:green", "base:../red", str(tmp_path / "red"), "/etc/passwd"):
        with pytest.raises(BadRequest, match="available: base, base:red"):
            one.chat(ASK, GREEDY, model=model)
    assert said(one)


def test_an_answer_keeps_the_adapter_that_is_removed_while_it_is_written(one, tmp_path):
    one.add_adapter(tmp_path / "red")
    want = said(one, "base:red")
    stream = one.chat(ASK, GREEDY, model="base:red")
    one.remove_adapter("red")
    list(stream)
    assert tuple(stream.produced) == want
    with pytest.raises(BadRequest, match="available: base$"):
        one.chat(ASK, GREEDY, model="base:red")


def test_the_adapters_of_a_base_are_there_after_a_restart(one, base, tmp_path, read):
    one.add_adapter(tmp_path / "red")
    want = said(one, "base:red")
    one.close()
    again = Manager(base, data=tmp_path / "data")
    again.open(base)
    count = len(read)
    assert again.models() == ["base", "base:red"]
    assert not again.adapters()[0].loaded
    assert said(again, "base:red") == want
    assert len(read) == count + 1
    again.close()


def test_the_adapter_of_the_start_answers_by_default(base, tmp_path, read):
    (tmp_path / "red").mkdir()
    manager = Manager(base, adapter=tmp_path / "red")
    manager.start()
    assert manager.wait(60).status == "ready"
    for _ in range(500):
        if manager.default != "base":
            break
        threading.Event().wait(0.01)
    assert manager.default == "base:red"
    manager.remove_adapter("red")
    assert manager.default == "base"
    manager.close()


def test_a_start_whose_adapter_is_missing_serves_the_base_and_says_so(base, tmp_path, read):
    manager = Manager(base, adapter=tmp_path / "gone")
    manager._start()
    state = manager.state()
    assert state.status == "ready" and "no adapter at" in state.message
    assert manager.default == "base" and said(manager)
    manager.close()


def test_two_who_switch_the_base_at_once_get_one_load_and_whole_answers(one, base, tmp_path):
    other = write_checkpoint(tmp_path / "other", vocabulary=66000, seed=5)
    stream = one.chat(ASK, GREEDY)
    want = said(one)
    opened: list[object] = []
    opener, count = one._opener, []

    def counted(info, how):
        count.append(info.name)
        return opener(info, how)

    one._opener = counted
    threads = [
        threading.Thread(target=lambda: opened.append(one.open(other).name)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert opened == ["other"] * 3 and count == ["other"]
    list(stream)
    assert tuple(stream.produced) == want != said(one)


def test_a_model_steps_aside_and_comes_back(one, tmp_path):
    one.add_adapter(tmp_path / "red")
    stream, want = one.chat(ASK, GREEDY), said(one)
    one.step_aside("a training run has the memory")
    list(stream)
    assert tuple(stream.produced) == want
    assert one.state().status == "aside" and one.state().info is None
    with pytest.raises(NotReady, match="a training run has the memory"):
        one.chat(ASK, GREEDY)
    with pytest.raises(NotReady):
        one.add_adapter(tmp_path / "blue")
    one.come_back()
    assert said(one) == want
    assert one.models() == ["base", "base:red"]


def test_memory_says_what_the_model_and_its_adapters_take(one, tmp_path):
    before = one.memory()
    one.add_adapter(tmp_path / "red")
    after = one.memory()
    assert before.adapters == 0 < after.adapters
    assert after.model > 66000 * 64 * 4 * 2
    assert 0 < after.free <= after.total and after.process > after.model


def test_an_adapter_does_not_mix_with_what_another_visitor_gets(one, tmp_path):
    for name in ("red", "blue"):
        one.add_adapter(tmp_path / name)
    models = ["base", "base:red", "base:blue"]
    want = {model: said(one, model) for model in models}
    streams = [
        (model, one.chat(ASK, GREEDY, model=model, options=Options(owner=str(i))))
        for i, model in enumerate(models * 4)
    ]
    for model, stream in streams:
        list(stream)
        assert tuple(stream.produced) == want[model]


def test_a_model_that_had_an_adapter_leaves_the_memory_with_its_engine(one, tmp_path):
    """At once: a garbage collection may be hours away."""
    one.add_adapter(tmp_path / "red")
    said(one, "base:red")
    model = weakref.ref(one._loaded.engine.model)
    gc.collect()
    gc.disable()
    try:
        one.step_aside("training")
        assert model() is None
    finally:
        gc.enable()
    one.come_back()
    assert said(one, "base:red") != said(one)


def test_the_adapter_given_at_the_start_answers_again_after_a_pause(base, tmp_path, read):
    (tmp_path / "red").mkdir()
    manager = Manager(base, adapter=tmp_path / "red")
    manager._start()
    assert manager.default == "base:red"
    manager.step_aside("training")
    manager.come_back()
    assert manager.default == "base:red"
    manager.close()


def test_room_is_made_by_adapters_first_and_the_model_last(one, tmp_path, monkeypatch):
    one.add_adapter(tmp_path / "red")
    free = iter([10, 30, 30, 10, 10, 40])
    monkeypatch.setattr(Manager, "_free_memory", lambda self: next(free))
    assert one.make_room(20, "training")
    assert not one.adapters()[0].loaded and one.state().status == "ready"
    assert one.make_room(20, "training") is True
    assert one.state().status == "aside" and one.state().message == "training"
    one.come_back()
    assert said(one, "base:red")

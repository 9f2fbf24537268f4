"""The Models tab: will it fit, looking at folders and ids, opening, unloading, two at once."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from demo import model_acts, model_finds, model_lists
from demo.model_fit import fits, need, token_bytes
from glm.adapters.values import AdapterInfo
from glm.memory import Memory
from glm.quantisation import quantise
from tests.models_desk import GB, card, end
from tests.page_desk import BOB, make_desk, visitor
from tests.tiny_checkpoint import CONFIG, write_shell

SIX_B = {
    "num_layers": 28,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "multi_query_group_num": 2,
    "kv_channels": 128,
    "padded_vocab_size": 65024,
}


@pytest.fixture
def place(tmp_path):
    made, opener = make_desk(tmp_path)
    yield made, opener
    opener.gate.set()
    made.app.manager.close()
    made.app.store.close()


@pytest.fixture
def desk(place):
    return place[0]


@pytest.fixture
def me(desk):
    return visitor(desk)


@pytest.fixture
def other(tmp_path):
    return write_shell(tmp_path / "shelf" / "chatglm2-other", seed=3)


# ---- will it fit ----


@pytest.mark.parametrize(
    ("free", "held", "verdicts"),
    [
        (20, 0, ["fits", "fits", "fits"]),
        (10, 13, ["instead", "fits", "fits"]),
        (6, 0, ["no", "no", "fits"]),
        (1, 2, ["no", "no", "no"]),
    ],
)
def test_a_model_of_six_billion_fits_where_its_weights_do(free, held, verdicts):
    found = fits(6_243_584_000, SIX_B, Memory(held * GB, 0, 0, free * GB, 64 * GB))
    assert [way.verdict for way in found] == verdicts
    assert [way.width for way in found] == [16, 8, 4]
    assert 12.4 * GB < found[0].bytes < 12.6 * GB


def test_the_accelerators_memory_counts_where_there_is_one():
    memory = Memory(0, 0, 0, 64 * GB, 64 * GB, 6 * GB, 8 * GB)
    assert [way.verdict for way in fits(6_243_584_000, SIX_B, memory)] == ["no", "no", "fits"]


def test_the_cache_of_a_conversation_is_counted_from_the_config():
    assert token_bytes(SIX_B) == 28_672
    assert token_bytes({}) == 0
    plain = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    assert token_bytes(plain) == 2 * 2 * 2 * 4 * 16


def test_embedding_and_head_stay_in_16_bit():
    assert 6.7 * GB < need(6_243_584_000, SIX_B, 8) < 6.9 * GB
    assert 6.6 * GB < need(6_243_584_000, {}, 8) < 6.9 * GB


def test_a_packed_checkpoint_opens_in_one_way():
    [way] = fits(6_243_584_000, SIX_B, Memory(0, 0, 0, 20 * GB, 20 * GB), packed=4)
    assert (way.bits, way.width) == (None, 4)


def test_the_config_of_the_tests_has_a_cache():
    assert token_bytes(CONFIG) == 2 * 2 * 2 * 2 * 16


# ---- looking ----


def test_a_folder_is_looked_at_before_it_is_opened(desk, me, other):
    found = end(model_acts.look(desk, me, {"at": f" {other} "})).value
    assert (found.kind, found.info.family) == ("model", "ChatGLM2")
    shown = model_lists.report(found, Memory(0, 0, 0, 9 * GB, 16 * GB), "the report", me.say)
    for text in ("coded as ChatGLM2", str(other), "fits", "9.0 GB are free", "the report"):
        assert text in shown
    assert desk.app.manager.state().info.name == "model"


def test_what_is_no_model_is_told_in_a_sentence(desk, me, tmp_path):
    found = end(model_acts.look(desk, me, {"at": str(tmp_path)})).value
    assert found.kind == "nothing" and "config.json" in found.why
    assert "data-form" not in model_lists.report(found, desk.app.manager.memory(), "", me.say)
    assert end(model_acts.look(desk, me, {"at": "  "})).failed


def test_a_folder_with_an_adapter_is_offered_to_the_present_model(desk, me, tmp_path, monkeypatch):
    info = AdapterInfo("run", tmp_path / "run", "LoRA", 8, reason="PEFT")
    monkeypatch.setattr(model_finds, "looks_like_adapter", lambda path: "LoRA")
    monkeypatch.setattr(model_finds, "describe", lambda path: info)
    found = end(model_acts.look(desk, me, {"at": str(tmp_path / "run")})).value
    shown = model_lists.report(found, desk.app.manager.memory(), "", me.say)
    assert found.kind == "adapter" and 'data-act="m-add"' in shown


def test_a_hub_id_that_is_not_here_says_that_it_is_downloaded(desk, me):
    found = end(model_acts.look(desk, me, {"at": "THUDM/chatglm3-6b"})).value
    shown = model_lists.report(found, Memory(0, 0, 0, 99 * GB, 99 * GB), "", me.say)
    assert found.kind == "hub" and "12.4 GB first" in shown
    found = end(model_acts.look(desk, me, {"at": "someone/something"})).value
    shown = model_lists.report(found, Memory(0, 0, 0, 99 * GB, 99 * GB), "", me.say)
    assert "downloads it first" in shown and 'data-form="open"' in shown


def test_cached_hub_models_and_folders_are_listed_with_what_answers(desk, me, other, monkeypatch):
    monkeypatch.setattr(model_finds, "cached", lambda: [("THUDM/chatglm2-6b", other)])
    end(model_acts.change_folders(desk, me, {"at": str(other.parent)}))
    end(model_acts.change_folders(desk, me, {"at": str(other.parent)}))
    found = model_acts.groups(desk, me)
    assert [len(group.finds) for group in found] == [1, 1, 1]
    desk.app.manager.open(other)
    shown = model_lists.lists(found, str(other.resolve()), "en", me.say)
    assert shown.count("Answers now") == 2 and shown.count("THUDM/chatglm2-6b<") == 1
    end(model_acts.change_folders(desk, me, {"drop": str(other.parent)}))
    assert len(model_acts.groups(desk, me)) == 2


def test_a_folder_that_is_not_there_is_refused_and_one_that_went_stays_on_the_list(desk, me, other):
    assert end(model_acts.change_folders(desk, me, {"at": "/no/such"})).failed
    file = desk.app.data_dir / "model_folders.json"
    file.write_text(json.dumps(["/gone", 3]))
    assert [group.folder for group in model_acts.groups(desk, me)] == ["", "/gone"]
    file.write_text("{")
    assert model_acts.folders(desk).all() == []


def test_the_hubs_address_is_the_environments(me, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert "https://mirror.example" in model_lists.open_form(me.say)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in model_lists.open_form(me.say)


def test_quantisation_is_offered_only_where_it_can_be_done(desk, me, other, monkeypatch):
    found = end(model_acts.look(desk, me, {"at": str(other)})).value
    memory = Memory(0, 0, 0, 9 * GB, 16 * GB)
    why = {4: "widths", 8: None}
    monkeypatch.setattr(quantise, "can_quantise", lambda config, bits: why[bits])
    shown = model_lists.report(found, memory, "", me.say)
    assert 'value="8">' in shown and 'value="4" disabled' in shown and 'title="widths"' in shown
    why[8] = "no"
    shown = model_lists.report(found, memory, "", me.say)
    assert 'value="8" disabled' in shown


# ---- opening ----


def test_a_model_is_opened_with_steps_while_the_other_one_answers(place, me, other):
    desk, opener = place
    opener.gate.clear()
    steps = model_acts.open_model(desk, me, {"at": str(other), "dtype": "float32"})
    began = time.monotonic()
    seen = [next(steps) for _ in range(3)]
    assert time.monotonic() - began < 1 and not any(step.done for step in seen)
    assert "chatglm2-other" in seen[-1].text
    assert desk.app.manager.state().info.name == "model"
    opener.gate.set()
    last = end(steps)
    assert last.done and not last.failed and "chatglm2-other" in last.text
    assert desk.app.manager.how.dtype == "float32"


def test_a_model_that_cannot_be_opened_is_a_sentence_and_the_other_stays(desk, me):
    last = end(model_acts.open_model(desk, me, {"at": "/no/such/folder"}))
    assert last.failed and "/no/such/folder" in last.text
    assert desk.app.manager.state().info.name == "model"


def test_a_fault_of_our_own_while_opening_is_no_traceback(desk, me, monkeypatch):
    def broken(*args, **more):
        raise RuntimeError("/srv/secret")

    monkeypatch.setattr(desk.app.manager, "open", broken)
    last = end(model_acts.open_model(desk, me, {"at": "anything"}))
    assert last.failed and "/srv" not in last.text


def test_the_built_in_model_is_opened_by_its_word(desk, me):
    at, _ = model_acts.read_opening(desk, {"at": model_finds.BUILT_IN})
    assert Path(at).name == "tiny"


def test_a_tokenizer_from_elsewhere_stays_with_its_own_model(desk, me, tmp_path):
    manager = desk.app.manager
    path = manager.state().info.path
    manager._how = replace(manager.how, tokenizer=str(path))
    assert model_acts.read_opening(desk, {"at": str(path)})[1].tokenizer == str(path)
    assert model_acts.read_opening(desk, {"at": "/another"})[1].tokenizer is None


@pytest.mark.parametrize(
    "sent",
    [
        {"bits": "3"},
        {"bits": "8; rm"},
        {"dtype": "int1"},
        {"device": "/etc"},
        {"device": "cuda:x"},
        {"at": ""},
        {"at": "x" * 2000},
        {"at": "a\0b"},
        {"at": None},
    ],
)
def test_what_no_form_of_ours_sends_opens_nothing(desk, me, sent, place):
    engines = len(place[1].engines)
    assert end(model_acts.open_model(desk, me, {"at": "/models/x", **sent})).failed
    assert len(place[1].engines) == engines


def test_unloading_frees_the_engine_and_opening_again_brings_it_back(place, me):
    desk, opener = place
    assert not end(model_acts.unload(desk, me)).failed
    assert opener.engines[0].closed and desk.app.manager.state().status == "aside"
    assert "m-back" in card(desk, me) and "operator unloaded" in card(desk, me)
    assert "m-back" not in card(desk, visitor(desk, BOB))
    assert not end(model_acts.come_back(desk, me)).failed
    assert desk.app.manager.state().info.name == "model"


def test_a_model_too_large_beside_the_present_one_is_opened_after_it_is_unloaded(place, me, other):
    desk, opener = place
    end(model_acts.open_model(desk, me, {"at": str(other), "unload": True}))
    assert opener.engines[0].closed and desk.app.manager.state().info.name == "chatglm2-other"


def test_two_people_who_open_models_at_once_both_see_what_answers(place, me, other, tmp_path):
    desk, opener = place
    third = write_shell(tmp_path / "third", seed=4)
    opener.gate.clear()
    ends = []
    threads = [
        threading.Thread(
            target=lambda path=path: ends.append(
                end(model_acts.open_model(desk, me, {"at": str(path)}))
            )
        )
        for path in (other, third)
    ]
    for thread in threads:
        thread.start()
    opener.gate.set()
    for thread in threads:
        thread.join(20)
    assert [step.failed for step in ends] == [False, False]
    assert desk.app.manager.state().info.name in card(desk, me)
    assert sum(not engine.closed for engine in opener.engines) == 1

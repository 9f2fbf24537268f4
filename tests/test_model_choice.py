"""Which model answers a conversation: chosen, kept with it, recorded, and when it is gone."""

from __future__ import annotations

import pytest

import glm.manager
from demo import acts, asking, model_choice, tool_acts
from demo.asking import Draft
from demo.desk import Wish
from demo.model_choice import chosen, draw, draw_gone, is_here, options, title
from demo.models import line
from demo.text import Refused
from demo.tool_setup import Setup, read_setup
from glm.adapters.shelf import Shelved
from glm.engines.base import Request
from glm.engines.fake import FakeEngine
from glm.errors import AdapterGone
from glm.manager import ModelState
from glm.messages import Sampling
from tests.fake_adapters import read_nothing
from tests.page_desk import answered, last, make_desk, text_of, visitor
from tests.tools_desk import ask as ask_tools
from tests.tools_desk import html, make, say

WEATHER = Wish("", Sampling(max_tokens=200, seed=1), "base:weather")
ATTACK = '"><img src=x onerror="window.pwned=1">'


@pytest.fixture(autouse=True)
def adapters(monkeypatch):
    monkeypatch.setattr(glm.manager, "read_adapter", read_nothing)


@pytest.fixture
def desk(tmp_path):
    made, _ = make_desk(tmp_path)
    made.app.manager.add_adapter(tmp_path / "weather")
    yield made
    made.app.manager.close()
    made.app.store.close()


@pytest.fixture
def me(desk):
    return visitor(desk)


def ask(desk, who, wish, conversation="", text="hello"):
    frame = last(answered(desk, who, asking.send(desk, who, conversation, Draft(text), wish)))
    return frame, frame.conversation or conversation


def test_an_answer_is_recorded_under_the_model_that_was_chosen(desk, me):
    frame, chat = ask(desk, me, WEATHER)
    node = desk.app.store.path("ann", chat)[-1]
    assert node.turn.model == "base:weather"
    assert frame.rows.live[-1]["model"] == "weather"
    assert "base:weather" in acts.look_inside(desk, me, chat, node.id)
    assert acts.wish_of(desk, me, chat).model == "base:weather"


def test_an_answer_of_the_base_names_no_adapter(desk, me):
    frame, chat = ask(desk, me, Wish("", WEATHER.sampling))
    assert desk.app.store.path("ann", chat)[-1].turn.model == "base"
    assert frame.rows.live[-1]["model"] == ""


def test_without_a_choice_the_default_answers(desk, me, monkeypatch):
    monkeypatch.setattr(desk.app.manager, "_default", "base:weather")
    _, chat = ask(desk, me, Wish("", WEATHER.sampling))
    assert desk.app.store.path("ann", chat)[-1].turn.model == "base:weather"


def test_a_question_to_an_adapter_that_is_gone_comes_back_and_nothing_is_lost(desk, me):
    _, chat = ask(desk, me, WEATHER)
    desk.app.manager.remove_adapter("weather")
    frame, _ = ask(desk, me, WEATHER, chat, "and tomorrow?")
    assert "weather" in frame.notice and frame.composer == "and tomorrow?"
    assert len(desk.app.store.path("ann", chat)) == 2
    acts.choose(desk, me, chat, "base")
    frame, _ = ask(desk, me, acts.wish_of(desk, me, chat), chat, "and tomorrow?")
    assert text_of(frame.live)[1] == "Fine." and frame.notice == ""


def test_a_choice_keeps_the_other_settings_and_refuses_what_is_not_here(desk, me):
    _, chat = ask(desk, me, Wish("Be brief.", WEATHER.sampling))
    acts.choose(desk, me, chat, "base:weather")
    kept = acts.wish_of(desk, me, chat)
    assert (kept.system, kept.model, kept.sampling.seed) == ("Be brief.", "base:weather", 1)
    for name in ("base:missing", "base:", "other", "base:weather+", "base:weather+missing", ATTACK):
        with pytest.raises(Refused):
            acts.choose(desk, me, chat, name)
    assert acts.wish_of(desk, me, chat).model == "base:weather"


def test_the_selector_is_there_only_where_there_is_a_choice(desk, me):
    manager = desk.app.manager
    shown = draw(manager, "", me.say, "data-choice")
    assert 'value="base" selected' in shown and "weather · LoRA r=8" in shown
    assert 'value="base:weather" selected' in draw(manager, "base:weather", me.say, "data-choice")
    manager.remove_adapter("weather")
    assert draw(manager, "", me.say, "data-choice") == ""
    assert draw_gone(manager, "", me.say, "") == ""


def test_a_conversation_whose_adapter_is_gone_says_so_and_offers_the_base(desk, me):
    desk.app.manager.remove_adapter("weather")
    shown = draw(desk.app.manager, "base:weather", me.say, "data-choice")
    assert "weather (gone)" in shown and 'value="base"' in shown
    banner = draw_gone(desk.app.manager, "base:weather", me.say, 'data-choose="base"')
    assert "weather" in banner and 'data-choose="base"' in banner


def test_while_a_model_loads_nothing_counts_as_gone(desk, monkeypatch):
    loading = ModelState("loading")
    monkeypatch.setattr(desk.app.manager, "state", lambda: loading)
    assert is_here(desk.app.manager, "base:missing")


def test_a_lora_and_a_prefix_can_be_chosen_together(desk, me, tmp_path):
    manager = desk.app.manager
    manager.add_adapter(tmp_path / "prefix")
    assert [address for address, _ in options(manager)] == [
        "base",
        "base:prefix",
        "base:weather",
        "base:weather+prefix",
    ]
    _, chat = ask(desk, me, Wish("", WEATHER.sampling, "base:weather+prefix"))
    assert desk.app.store.path("ann", chat)[-1].turn.model == "base:weather+prefix"
    assert title("base:weather+prefix") == "weather + prefix"


def test_names_of_adapters_run_nothing_in_a_selector(desk, me, monkeypatch):
    manager = desk.app.manager
    monkeypatch.setattr(manager, "models", lambda: ["base", f"base:{ATTACK}"])
    monkeypatch.setattr(manager, "adapters", lambda: [Shelved(ATTACK, desk.app.data_dir)])
    for html_text in (
        draw(manager, f"base:{ATTACK}", me.say, "data-choice"),
        draw(manager, f"base:{ATTACK}2", me.say, "data-choice"),
        draw_gone(manager, f"base:{ATTACK}2", me.say, "data-choose"),
    ):
        assert "<img" not in html_text and html_text


def test_an_unloaded_model_refuses_a_question_at_once(desk, me):
    desk.app.manager.step_aside("a training run needs the memory")
    frame, _ = ask(desk, me, WEATHER)
    assert "a training run needs the memory" in frame.notice and frame.composer == "hello"
    assert "a training run" in line(desk.app.manager.state(), me.say)


def test_the_fake_engine_refuses_an_adapter_it_does_not_have():
    engine = FakeEngine([(1,)])
    engine.add_adapter("a#1", "values")
    assert engine.submit(Request((1,), adapter="a#1")).next() != []
    for key in ("b#1", "a#1+b#1"):
        with pytest.raises(AdapterGone):
            engine.submit(Request((1,), adapter=key))
    engine.remove_adapter("a#1")
    assert engine.adapters == {}


# ---- the Tools tab ----


@pytest.fixture
def bench(tmp_path):
    made, _, _ = make(tmp_path, [say("It is sunny."), say("Still sunny.")])
    made.app.manager.add_adapter(tmp_path / "weather")
    yield made
    made.app.manager.close()
    made.app.store.close()


def test_a_run_with_tools_is_answered_and_recorded_by_the_chosen_model(bench):
    me = visitor(bench)
    frame = ask_tools(bench, me, "How is it?", setup=Setup(model="base:weather"))
    assert bench.app.store.path("ann", frame.conversation)[-1].turn.model == "base:weather"
    assert '<span class="by">weather</span>' in html(frame)
    assert tool_acts.setup_of(bench, me, frame.conversation).model == "base:weather"


def test_a_run_without_a_choice_keeps_which_model_answered(bench):
    me = visitor(bench)
    frame = ask_tools(bench, me, "How is it?")
    assert tool_acts.setup_of(bench, me, frame.conversation).model == "base"


def test_a_session_whose_adapter_is_gone_gives_the_question_back(bench):
    me = visitor(bench)
    frame = ask_tools(bench, me, "How is it?", setup=Setup(model="base:weather"))
    bench.app.manager.remove_adapter("weather")
    chat, setup = frame.conversation, frame.setup
    again = ask_tools(bench, me, "And now?", chat, setup)
    assert "weather" in again.notice and again.composer == "And now?"
    change = {"base": setup.text(), "changes": [{"field": "model", "value": "base"}]}
    setup = tool_acts.change(bench, me, change)
    assert "Still sunny" in html(ask_tools(bench, me, "And now?", chat, setup))


@pytest.mark.parametrize("found", [3, None, ["base"], {"a": 1}])
def test_a_model_of_a_strange_form_in_a_setup_is_the_default(found):
    assert read_setup({"model": found}).model == ""


def test_a_session_cannot_name_a_model_that_is_not_here(bench):
    with pytest.raises(Refused):
        chosen(bench.app.manager, ATTACK)
    assert model_choice.chosen(bench.app.manager, "") == "base"

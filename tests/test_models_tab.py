"""The Models tab: what answers, adapters, export, the rights of visitors, names of strangers."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import glm.export
import glm.manager
from demo import model_acts, model_cards, model_finds, model_lists
from demo.app import build
from glm.adapters.shelf import Shelved
from glm.adapters.values import AdapterInfo
from glm.errors import CheckpointError
from glm.memory import Memory
from tests.fake_adapters import read_nothing
from tests.models_desk import ATTACK, GB, card, end, event, request, tab_of
from tests.page_desk import BOB, make_desk, visitor


@pytest.fixture(autouse=True)
def adapters(monkeypatch):
    monkeypatch.setattr(glm.manager, "read_adapter", read_nothing)


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
def bob(desk):
    return visitor(desk, BOB)


# ---- what answers now ----


def test_the_card_says_what_answers_and_why_it_was_recognised(desk, me):
    shown = card(desk, me)
    for text in (
        "model",
        "ChatGLM3",
        "not named chatglm2",
        "256 tokens",
        "8.5 M",
        "Unload",
        "free",
    ):
        assert text in shown


def test_a_visitor_reads_what_answers_without_paths_or_buttons(desk, bob, tmp_path):
    desk.app.manager.add_adapter(tmp_path / "weather")
    shown = card(desk, bob)
    assert "ChatGLM3" in shown and "weather" in shown
    assert str(tmp_path) not in shown and "data-act" not in shown
    updates = tab_of(desk).page(request(BOB), "en")
    assert {c.elem_id for c, html in updates.items() if html} - {None} == {"m-now"}


def test_memory_is_told_of_the_accelerator_where_there_is_one(me):
    shown = model_cards.memory(
        Memory(12 * GB, GB, 3 * GB, 9 * GB, 16 * GB, 5 * GB, 24 * GB), me.say
    )
    for text in ("accelerator: 24.0 GB", "12.0 GB", "1.0 GB", "5.0 GB", "6.0 GB"):
        assert text in shown
    assert "this program" not in shown


def test_a_failed_try_is_told_beside_the_model_that_still_answers(desk, me, bob):
    with pytest.raises(CheckpointError):
        desk.app.manager.open("/no/such/folder")
    assert "/no/such/folder" in card(desk, me) and "ChatGLM3" in card(desk, me)
    assert "/no/such" not in card(desk, bob)


# ---- adapters ----


def test_an_adapter_is_added_shown_and_taken_off_the_list(desk, me, tmp_path):
    path = str(tmp_path / "runs" / "weather")
    added = end(model_acts.add_adapter(desk, me, {"at": path, "name": "rain"}))
    assert not added.failed and desk.app.manager.models() == ["base", "base:rain"]
    tab = tab_of(desk)
    shown = tab.drawn(me)[tab.parts.adapters]
    for text in (
        "rain",
        "LoRA r=8",
        "in memory",
        "THUDM/chatglm3-6b",
        str(tmp_path / "runs"),
        "8 MB",
    ):
        assert text in shown
    assert 'data-model="base:rain"' in shown
    end(model_acts.remove_adapter(desk, me, {"name": "rain"}))
    assert desk.app.manager.models() == ["base"]
    assert end(model_acts.remove_adapter(desk, me, {"name": "rain"})).failed


def test_a_bare_file_asks_for_its_alpha_once(desk, me, tmp_path):
    sent = {"at": str(tmp_path / "lora.pt"), "name": "old"}
    asked = end(model_acts.add_adapter(desk, me, sent))
    assert asked.rank == 8 and not asked.failed and desk.app.manager.models() == ["base"]
    [*_, html] = tab_of(desk).on_add(request(), event(**sent), "en")
    assert 'name="alpha"' in html and 'data-name="old"' in html and "lora.pt" in html
    end(model_acts.add_adapter(desk, me, {**sent, "alpha": "16"}))
    assert [item.alpha for item in desk.app.manager.adapters()] == [16.0]


@pytest.mark.parametrize("alpha", ["-1", "0", "nan", "inf", "x", [1]])
def test_an_alpha_that_is_no_number_above_zero_is_refused(desk, me, tmp_path, alpha):
    sent = {"at": str(tmp_path / "lora.pt"), "alpha": alpha}
    assert end(model_acts.add_adapter(desk, me, sent)).failed
    assert desk.app.manager.models() == ["base"]


def test_an_adapter_that_cannot_be_read_is_a_sentence(desk, me, tmp_path):
    for at in (str(tmp_path / "broken"), ""):
        last = end(model_acts.add_adapter(desk, me, {"at": at}))
        assert last.failed and last.text
    assert end(model_acts.add_adapter(desk, me, {"at": "/x", "name": ATTACK})).failed


def test_an_adapter_nobody_opened_yet_is_described_from_its_files(desk, me, tmp_path):
    info = AdapterInfo("old", tmp_path, "P-Tuning v2", None, 128, warnings=("Mind the base.",))
    shown = model_cards.adapters([Shelved("old", tmp_path)], lambda item: info, True, me.say)
    for text in ("put away", "P-Tuning v2 · 128", "Mind the base."):
        assert text in shown


# ---- export ----


def exporting(monkeypatch, write):
    monkeypatch.setattr(glm.export, "export", write)


def test_an_export_shows_how_far_it_is_and_the_verdict_of_the_comparison(
    desk, me, tmp_path, monkeypatch
):
    desk.app.manager.add_adapter(tmp_path / "weather")
    seen = []

    def write(wanted, progress):
        seen.append(wanted)
        progress("writing 3 of 9", 0.33)
        time.sleep(0.25)
        return SimpleNamespace(folder=wanted.folder, bytes=9, verdict=Verdict())

    class Verdict:
        notes = (ATTACK,)

        def __str__(self):
            return f"9 tensors equal {ATTACK}"

    exporting(monkeypatch, write)
    sent = {"target": "native", "adapter": "weather", "folder": "mine"}
    shown = list(tab_of(desk).on_export(request(), event(**sent), "en"))
    assert any("writing 3 of 9" in html and "33%" in html for html in shown)
    assert "9 tensors equal" in shown[-1] and "<img" not in shown[-1]
    [wanted] = seen
    assert wanted.folder == desk.app.data_dir / "exports" / "mine"
    assert (wanted.to, wanted.adapter) == ("native", (tmp_path / "weather").absolute())
    assert wanted.model == desk.app.manager.state().info.path.resolve()


@pytest.mark.parametrize(
    "sent",
    [
        {"target": "exe"},
        {"adapter": "missing"},
        {"target": "peft"},
        {"folder": ""},
        {"folder": "../../etc"},
    ],
)
def test_an_export_that_cannot_be_asked_for_writes_nothing(desk, me, sent, monkeypatch):
    exporting(monkeypatch, lambda *args: pytest.fail("it was written"))
    wanted = {"target": "hub", "adapter": "", "folder": "mine", **sent}
    assert end(model_acts.export(desk, me, wanted)).failed


def test_an_export_that_fails_is_a_sentence(desk, me, monkeypatch):
    def write(wanted, progress):
        raise CheckpointError("a prefix is in no weights")

    exporting(monkeypatch, write)
    last = end(model_acts.export(desk, me, {"target": "hub", "folder": "mine"}))
    assert last.failed and "a prefix is in no weights" in last.text


# ---- rights, names, events ----

SENT = {"at": "/etc", "drop": "/etc", "name": "weather", "target": "hub", "folder": "x"}


@pytest.mark.parametrize(
    "act",
    [
        "look",
        "change_folders",
        "open_model",
        "add_adapter",
        "remove_adapter",
        "export",
    ],
)
def test_a_visitor_is_refused_whatever_the_page_sends(desk, bob, tmp_path, act):
    desk.app.manager.add_adapter(tmp_path / "weather")
    [step] = getattr(model_acts, act)(desk, bob, SENT)
    assert step.failed and step.value is None and "operator" in step.text
    assert desk.app.manager.models() == ["base", "base:weather"]
    assert not (desk.app.data_dir / "model_folders.json").exists()


def test_a_visitor_unloads_and_brings_back_nothing(place, bob):
    desk, opener = place
    for steps in (model_acts.unload(desk, bob), model_acts.come_back(desk, bob)):
        [step] = steps
        assert step.failed
    assert desk.app.manager.state().status == "ready" and len(opener.engines) == 1


def test_every_event_of_the_tab_refuses_a_visitor(desk, tmp_path):
    tab, who = tab_of(desk), request(BOB)
    desk.app.manager.add_adapter(tmp_path / "weather")
    for run in (tab.on_look, tab.on_open, tab.on_folder, tab.on_add, tab.on_forget, tab.on_export):
        shown = str(list(run(who, event(**SENT), "en")))
        assert "operator" in shown and "/etc" not in shown
    for run in (tab.on_back, tab.on_aside):
        assert "operator" in str(list(run(who, "en")))
    assert tab.on_finds(who, "en") == ""
    assert str(tmp_path) not in str(list(tab.on_changed(who, "", "", "", "en").values()))


def test_names_and_paths_of_strangers_run_nothing(desk, me):
    info = replace(
        desk.app.manager.state().info,
        name=ATTACK,
        family=ATTACK,
        reason=ATTACK,
        path=Path(ATTACK),
    )
    seen = model_cards.now(desk.app.manager, True)
    state = replace(seen.state, info=info, message=ATTACK)
    adapter = AdapterInfo(
        ATTACK, Path(ATTACK), ATTACK, 8, base=ATTACK, run=ATTACK, layout=ATTACK, warnings=(ATTACK,)
    )
    item = Shelved(ATTACK, Path(ATTACK), problem=ATTACK)
    finds = [
        model_finds.Find(ATTACK, "model", ATTACK, ATTACK, info, None, 10**9, 10**9),
        model_finds.Find(ATTACK, "adapter", ATTACK, ATTACK, None, adapter),
        model_finds.Find(ATTACK, "nothing", ATTACK, ATTACK),
        model_finds.Find(ATTACK, "hub", ATTACK),
    ]
    memory = desk.app.manager.memory()
    groups = [model_finds.Group(ATTACK, finds, ATTACK)]
    drawn = [
        model_cards.answers(replace(seen, state=state), me.say),
        model_cards.answers(
            replace(seen, state=replace(state, status="failed", info=None)), me.say
        ),
        model_cards.answers(replace(seen, state=replace(state, status="loading")), me.say),
        model_cards.adapters([item], lambda item: adapter, True, me.say),
        model_cards.alpha_form(ATTACK, ATTACK, ATTACK, me.say),
        model_cards.said(ATTACK, True),
        model_cards.working(ATTACK, 0.5),
        model_lists.lists(groups, "", "en", me.say),
        model_lists.export_form(info, [ATTACK], Path(ATTACK), me.say),
        model_lists.exported(ATTACK, ATTACK, [ATTACK], me.say),
        *(model_lists.report(find, memory, ATTACK, me.say) for find in finds),
    ]
    for html in drawn:
        assert "<img" not in html and 'onerror="' not in html and "&quot;&gt;&lt;img" in html


def test_what_others_changed_is_sent_and_nothing_else(desk, me, tmp_path):
    tab = tab_of(desk)
    page, p = tab.page(request(), "en"), tab.parts
    shown = [page[one] for one in p.drawn]
    desk.app.manager.add_adapter(tmp_path / "weather")
    changed = tab.on_changed(request(), *shown, "en")
    assert {p.adapters, p.export} <= set(changed) and "weather" in changed[p.adapters]


def test_no_event_of_the_tab_is_taken_for_the_end_of_a_visit(desk):
    """gradio runs whatever is called "unload" when a browser tab is closed."""
    page = build(desk.app)
    named = [
        fn.fn.__qualname__
        for fn in page.fns.values()
        if any(name == "unload" for _, name in fn.targets)
    ]
    assert set(named) <= {"Opening.on_unload", "ToolsTab.on_unload"}
    page.close()


@pytest.mark.parametrize("variable", ["GLM_USE_MODELSCOPE", "VLLM_USE_MODELSCOPE"])
def test_the_page_names_the_hub_that_is_asked(monkeypatch, variable):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("MODELSCOPE_ENDPOINT", raising=False)
    assert model_finds.hub()[0] == "https://huggingface.co"
    monkeypatch.setenv(variable, "1")
    assert model_finds.hub()[0] == "https://www.modelscope.cn"

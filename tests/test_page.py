"""The page's handlers over plain values: asking, stopping, branches, failures, owners."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from benchmarks.page import measure
from demo import acts, asking
from demo.app import build
from demo.asking import Draft, Place
from demo.desk import Wish
from demo.drawer import who
from demo.frame import Frame
from demo.models import line
from demo.text import Words
from glm.errors import EngineError, NotFound, QueueFull
from glm.identity import User
from glm.manager import ModelState
from glm.messages import Sampling
from tests.page_desk import ANN, BOB, WISH, answered, last, make_desk, text_of, visitor

SECRET = "/srv/models/secret.bin line 3"


def reply(asked: str) -> str | BaseException:
    if "break" in asked.rsplit("\n", 1)[-1]:
        return EngineError(SECRET)
    return f"You said {len(asked)} letters."


@pytest.fixture
def desk(tmp_path):
    made, _ = make_desk(tmp_path, reply)
    yield made
    made.app.manager.close()
    made.app.store.close()


@pytest.fixture
def me(desk):
    return visitor(desk)


def ask(desk, who, text, conversation=""):
    """The frames of a message, and the conversation it is in."""
    asked = asking.send(desk, who, conversation, Draft(text), WISH)
    frames = list(answered(desk, who, asked))
    found = [frame.conversation for frame in frames if frame.conversation]
    return frames, found[0] if found else conversation


def messages(desk, conversation, owner="ann"):
    return [n.message.content for n in desk.app.store.path(owner, conversation)]


def test_a_message_is_drawn_answered_and_kept(desk, me):
    frames, chat = ask(desk, me, "hello")
    assert text_of(frames[0].live) == ["hello"]
    assert frames[0].rows.busy and frames[0].composer == ""
    assert text_of(frames[-1].live)[0] == "hello"
    assert text_of(frames[-1].live)[1].startswith("You said")
    assert not frames[-1].rows.busy
    assert messages(desk, chat) == text_of(frames[-1].live)


def test_the_answer_arrives_in_pieces(tmp_path):
    desk, _ = make_desk(tmp_path, lambda asked: "one two three four five six", pause=0.03)
    frames, _ = ask(desk, visitor(desk), "count")
    shown = [text_of(f.live)[1] for f in frames if f.live and len(f.live) == 2]
    assert len(set(shown)) > 2
    assert all("one two three four five six".startswith(text) for text in shown)


def test_history_is_drawn_once_per_turn(desk, me):
    _, chat = ask(desk, me, "one")
    frames, _ = ask(desk, me, "two", chat)
    assert [text_of(frames[0].history)[0]] == ["one"]
    assert all(frame.history is None for frame in frames[1:])


def test_the_figures_of_a_turn_are_shown_and_kept(desk, me):
    frames, chat = ask(desk, me, "hello")
    row = frames[-1].rows.live[-1]
    turn = desk.app.store.path("ann", chat)[-1].turn
    assert row["figures"].startswith(f"{turn.usage.new} tokens")
    used, available = frames[-1].context
    assert used == len(turn.prompt) + len(turn.produced) and available == 256


def test_an_answer_without_a_seed_gets_one_so_that_it_can_be_made_again(desk, me):
    wish = Wish("", replace(WISH.sampling, seed=None))
    list(answered(desk, me, asking.send(desk, me, "", Draft("hello"), wish)))
    chat = desk.app.store.list("ann")[0].id
    assert isinstance(desk.app.store.path("ann", chat)[-1].turn.sampling.seed, int)


def test_stop_keeps_what_was_written(tmp_path):
    desk, _ = make_desk(tmp_path, lambda asked: "word " * 100, pause=0.005)
    me, seconds = visitor(desk), []
    for _ in range(3):
        frames = answered(desk, me, asking.send(desk, me, "", Draft("go"), WISH))
        for frame in frames:
            if frame.live and len(frame.live) == 2:
                break
        began = time.monotonic()
        assert desk.answers.stop(me.key)
        final = last(frames)
        seconds.append(time.monotonic() - began)
        assert final.rows.live[-1]["note"] == "stopped"
        assert text_of(final.live)[1].startswith("word")
    assert min(seconds) < 0.2


def test_closing_the_browser_tab_frees_the_slot_and_keeps_the_answer(tmp_path):
    desk, _ = make_desk(tmp_path, lambda asked: "word " * 100, pause=0.005)
    me = visitor(desk)
    frames = answered(desk, me, asking.send(desk, me, "", Draft("go"), WISH))
    for frame in frames:
        if frame.live and len(frame.live) == 2:
            break
    frames.close()
    assert len(desk.answers) == 0
    chat = desk.app.store.list("ann")[0].id
    assert messages(desk, chat)[1].startswith("word")
    assert desk.app.store.path("ann", chat)[-1].turn.finish == "cancelled"


def test_a_second_message_while_one_is_answered_changes_nothing(desk, me):
    first = answered(desk, me, asking.send(desk, me, "", Draft("one"), WISH))
    next(first), next(first)
    assert asking.send(desk, me, "", Draft("two"), WISH) == Frame()
    other = visitor(desk, tab="another tab")
    assert asking.send(desk, other, "", Draft("three"), WISH).rows.busy
    assert text_of(last(first).live)[0] == "one"


def test_nobody_stops_the_answer_of_another(tmp_path):
    desk, _ = make_desk(tmp_path, lambda asked: "word " * 20, pause=0.005)
    me = visitor(desk)
    frames = answered(desk, me, asking.send(desk, me, "", Draft("go"), WISH))
    next(frames)
    assert not desk.answers.stop(visitor(desk, BOB, tab=me.tab).key)
    assert last(frames).rows.live[-1]["note"] == ""


def test_retry_is_another_branch_and_one_can_go_back(desk, me):
    _, chat = ask(desk, me, "hello")
    first = desk.app.store.path("ann", chat)[-1]
    final = last(answered(desk, me, asking.retry(desk, me, Place(chat, first.id), WISH)))
    assert final.rows.live[-1]["branch"] == [2, 2]
    second = desk.app.store.path("ann", chat)[-1]
    back = acts.branch(desk, me, chat, second.id, -1)
    assert back.rows.live[-1]["branch"] == [1, 2]
    assert back.rows.live[-1]["node"] == first.id


def test_an_edited_question_is_answered_as_a_branch(desk, me):
    _, chat = ask(desk, me, "hello")
    asked = desk.app.store.path("ann", chat)[0]
    final = last(
        answered(desk, me, asking.edit(desk, me, Place(chat, asked.id), "good morning", WISH))
    )
    assert text_of(final.live)[0] == "good morning"
    assert final.rows.live[0]["branch"] == [2, 2]
    assert len(messages(desk, chat)) == 2


def test_an_edited_answer_is_kept_as_a_branch_without_its_old_tokens(desk, me):
    _, chat = ask(desk, me, "hello")
    said = desk.app.store.path("ann", chat)[1]
    final = last(answered(desk, me, asking.edit(desk, me, Place(chat, said.id), "Better.", WISH)))
    assert text_of(final.live) == ["hello", "Better."]
    assert desk.app.store.path("ann", chat)[-1].message.ids is None
    assert not final.rows.live[-1]["xray"]


def test_undo_takes_the_exchange_back_into_the_input(desk, me):
    _, chat = ask(desk, me, "one")
    ask(desk, me, "two", chat)
    node = desk.app.store.path("ann", chat)[-1].id
    frame = acts.undo(desk, me, chat, node)
    assert frame.composer == "two"
    assert messages(desk, chat)[0] == "one" and len(messages(desk, chat)) == 2


def test_a_judgement_is_kept_and_can_be_taken_back(desk, me):
    _, chat = ask(desk, me, "hello")
    node = desk.app.store.path("ann", chat)[-1].id
    acts.judge(desk, me, chat, node, "like")
    assert acts.show(desk, me, chat).rows.live[-1]["mark"] == "like"
    acts.judge(desk, me, chat, node, None)
    assert desk.app.store.feedback_rows("ann") == []


def test_the_system_prompt_reaches_the_model_and_is_remembered(tmp_path):
    desk, opener = make_desk(tmp_path)
    me, wish = visitor(desk), Wish("Be brief.", Sampling(temperature=0.1, seed=3))
    list(answered(desk, me, asking.send(desk, me, "", Draft("hello"), wish)))
    tokens = opener.dialect.tokenizer
    sent = tokens.decode(opener.engines[0].seen[0].prompt)
    assert "Be brief." in sent
    chat = desk.app.store.list("ann")[0].id
    found = acts.wish_of(desk, me, chat)
    assert (found.system, found.sampling.temperature, found.sampling.seed) == ("Be brief.", 0.1, 3)


def test_too_long_a_message_is_refused_in_a_sentence_and_returned_to_the_input(desk, me):
    _, chat = ask(desk, me, "hello")
    frames, _ = ask(desk, me, "word " * 5000, chat)
    assert "it can hold 4096" in frames[-1].notice
    assert frames[-1].composer.startswith("word word")
    assert len(messages(desk, chat)) == 2
    frames, _ = ask(desk, me, "still there?", chat)
    assert frames[-1].notice == "" and len(messages(desk, chat)) == 4


def test_a_model_that_breaks_gives_a_sentence_without_its_secrets(desk, me):
    frames, chat = ask(desk, me, "break")
    assert "try again" in frames[-1].notice and SECRET not in frames[-1].notice
    assert frames[-1].rows.live[-1]["unanswered"]
    frames, _ = ask(desk, me, "hello", chat)
    assert frames[-1].notice == "" and messages(desk, chat)[0] == "hello"


def test_a_full_queue_says_when_to_come_back(desk, me, monkeypatch):
    def full(*args, **more):
        raise QueueFull(7)

    monkeypatch.setattr(desk.app.manager, "chat", full)
    frames, _ = ask(desk, me, "hello")
    assert "7 s" in frames[-1].notice and frames[-1].composer == "hello"
    assert desk.app.store.list("ann") == []


def test_a_fault_of_our_own_is_no_traceback(desk, me, monkeypatch):
    def broken(*args, **more):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(desk.app.manager, "chat", broken)
    frames, _ = ask(desk, me, "hello")
    assert frames[-1].notice and SECRET not in frames[-1].notice


def test_a_message_sent_while_the_model_loads_waits_for_it(desk, me, monkeypatch):
    ready = desk.app.manager.state()
    states = [ModelState("loading", None, "", 0.4)] * 3
    monkeypatch.setattr(desk.app.manager, "state", lambda: states.pop() if states else ready)
    frames, _ = ask(desk, me, "hello")
    assert any("loading 40%" in (frame.meter or "") for frame in frames)
    assert text_of(frames[-1].live)[1].startswith("You said")


def test_another_visitor_does_not_see_a_conversation(desk, me):
    _, chat = ask(desk, me, "hello")
    node = desk.app.store.path("ann", chat)[-1].id
    bob = visitor(desk, BOB)
    assert "no such conversation" in acts.open_one(desk, bob, chat).notice
    assert acts.open_one(desk, bob, chat).live == []
    assert "hello" not in acts.conversations(desk, bob, "", "")
    attacks = [
        lambda: acts.undo(desk, bob, chat, node),
        lambda: acts.branch(desk, bob, chat, node, 1),
        lambda: acts.judge(desk, bob, chat, node, "like"),
        lambda: acts.look_inside(desk, bob, chat, node),
        lambda: acts.rename(desk, bob, chat, "mine"),
        lambda: acts.remove(desk, bob, chat, ""),
        lambda: acts.save(desk, bob, chat, ("json", "en")),
        lambda: asking.retry(desk, bob, Place(chat, node), WISH),
        lambda: asking.edit(desk, bob, Place(chat, node), "x", WISH),
    ]
    for attack in attacks:
        with pytest.raises(NotFound):
            attack()
    frames, _ = ask(desk, bob, "let me in", chat)
    assert "no such conversation" in frames[-1].notice
    assert len(messages(desk, chat)) == 2


def test_the_xray_shows_the_tokens_sent_and_produced(desk, me):
    _, chat = ask(desk, me, "hello")
    node = desk.app.store.path("ann", chat)[-1]
    html = acts.look_inside(desk, me, chat, node.id)
    for token in (*node.turn.prompt, *node.turn.produced):
        assert f"<i>{token}</i>" in html


def test_a_dropped_file_goes_into_the_context_with_its_tokens(desk, me, tmp_path):
    file = tmp_path / "sales.csv"
    file.write_text("city,amount\nParis,3\n")
    [(said, ok)] = acts.count_files(desk, me, [str(file)])
    assert ok and said.startswith("sales.csv: ") and not said.startswith("sales.csv: 0 ")
    draft = Draft("How many?", (str(file),))
    final = last(answered(desk, me, asking.send(desk, me, "", draft, WISH)))
    chat = desk.app.store.list("ann")[0]
    assert "Paris,3" in messages(desk, chat.id)[0]
    assert chat.title == "How many?"
    assert final.live[0]["metadata"]["title"] == "sales.csv"
    assert text_of(final.live)[1] == "How many?"
    assert final.rows.live[0]["text"] == "How many?"


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_sent(desk, me, tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(b"\x89PNG\0\0\0")
    frame = asking.send(desk, me, "", Draft("look", (str(file),)), WISH)
    assert "photo.png" in frame.notice
    assert desk.app.store.list("ann") == []


def test_a_saved_conversation_opens_again(desk, me, tmp_path):
    _, chat = ask(desk, me, "hello")
    for kind in ("json", "markdown"):
        name, text = acts.save(desk, me, chat, (kind, "en"))
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        again = acts.load(desk, me, str(file))
        assert again != chat and messages(desk, again) == messages(desk, chat)


def test_the_line_says_that_the_model_is_the_small_one_and_offers_others(desk, me):
    state = desk.app.manager.state()
    small = replace(state, info=replace(state.info, embedded=True, parameters=4_500_000))
    assert "small built-in model (4.5 M" in line(small, me.say)
    assert 'data-do="models"' in line(small, me.say)
    assert "small built-in" not in line(state, me.say)


def test_deleting_the_open_conversation_begins_a_new_one(desk, me):
    _, chat = ask(desk, me, "hello")
    frame = acts.remove(desk, me, chat, chat)
    assert frame.conversation == "" and frame.live == []
    assert desk.app.store.list(ANN.id) == []


def test_a_conversation_deleted_while_it_is_answered_is_a_sentence(tmp_path):
    desk, _ = make_desk(tmp_path, lambda asked: "word " * 30, pause=0.005)
    me = visitor(desk)
    frames = answered(desk, me, asking.send(desk, me, "", Draft("go"), WISH))
    for frame in frames:
        if frame.live and len(frame.live) == 2:
            break
    desk.app.store.delete("ann", desk.app.store.list("ann")[0].id)
    final = last(frames)
    assert "no such conversation" in final.notice and final.conversation == ""


def test_a_step_of_an_answer_costs_the_same_at_any_length_of_history(tmp_path):
    """The components of a step are the live ones alone, and none is made anew."""
    short = asyncio.run(measure(0, 1.0))
    long = asyncio.run(measure(500, 1.0))
    assert long["cpu_ms_per_step"] < 1.5 * short["cpu_ms_per_step"] + 1
    assert long["stop_ms"] < 200


def test_no_event_of_the_page_is_a_public_endpoint(desk):
    page = build(desk.app)
    assert {fn.api_visibility for fn in page.fns.values() if fn.fn.__name__ != "on_unload"} == {
        "private"
    }
    page.close()


def test_a_login_is_shown_with_the_way_out_and_loopback_shows_none():
    say = Words().of("en")
    shown = who(User("login:<b>", "<b>Ann"), say)
    assert "Signed in as &lt;b&gt;Ann" in shown
    assert 'href="logout"' in shown
    assert who(User("local", "local", operator=True), say) == ""

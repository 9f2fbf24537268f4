"""glm/store/conversations.py: a tree of messages that loses nothing, for its owner alone."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from glm.errors import BadRequest, NotFound
from glm.messages import Message, Sampling, ToolCall, Usage
from glm.store import Store, TurnRecord

ME, OTHER = "ann", "bob"
TURN = TurnRecord(
    prompt=(1, 2, 64795),
    produced=(3, 2**31 - 1),
    usage=Usage(prompt=3, cached=1, new=2),
    seconds=0.25,
    model="base",
    sampling=Sampling(temperature=0.0, seed=7, stop=("a", "b")),
    finish="stop",
)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "data" / "chats.db") as opened:
        yield opened


def user(text):
    return Message("user", text)


def say(text):
    return Message("assistant", text)


def texts(store, chat, leaf=None):
    return [node.message.content for node in store.path(ME, chat, leaf)]


def grow(store, chat, *contents, parent=None):
    """Alternating user and assistant messages in a chain; their ids."""
    nodes = []
    for place, content in enumerate(contents):
        message = say(content) if place % 2 else user(content)
        parent = store.append(ME, chat, message, parent)
        nodes.append(parent)
    return nodes


# ---- messages ----------------------------------------------------------------------------

DEEP = {"a": [1, -0.5, 10**400, True, None, {"": "ü", "中": ["\u2028", "\0"]}], "b-c d": {}}
MESSAGES = [
    user(""),
    user("line\r\nline\ttab \0 nul \x1b[31m <|assistant|> 😀"),
    user("half a pair: \ud83d end"),
    Message("system", "你是助手", learn=False),
    Message("assistant", "thought", learn=True, ids=()),
    Message("assistant", "a", thinking="hm\n", ids=(0, 5, 130527)),
    Message("assistant", calls=(ToolCall("f", DEEP, "id-1", "```python\nf()\n```"), ToolCall("g"))),
    Message(
        "assistant", calls=(ToolCall("", {}, "", ""), ToolCall("\ud800", {"\ud800": "\udfff"}))
    ),
    Message("tool", '{"t": 3}', name="f", call_id="id-1"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_a_message_comes_back_as_it_was(tmp_path, message):
    path = tmp_path / "chats.db"
    with Store(path) as store:
        chat = store.create(ME)
        store.append(ME, chat, message, None)
    with Store(path) as store:
        (node,) = store.path(ME, chat)
    assert node.message == message
    assert node.message.calls == message.calls


def test_a_turn_record_comes_back_as_it_was(store):
    chat = store.create(ME)
    node = store.append(ME, chat, say("hi"), None, TURN)
    store.append(ME, chat, say("hi"), node, TurnRecord((), (), Usage(), 0.0, "m", None, "error"))
    first, second = (n.turn for n in store.path(ME, chat))
    assert first == TURN
    assert second.sampling is None and second.prompt == () and second.finish == "error"


def test_arguments_that_are_no_json_are_refused(store):
    chat = store.create(ME)
    with pytest.raises(BadRequest, match="cannot be stored"):
        store.append(ME, chat, Message("assistant", calls=(ToolCall("f", {"x": {1, 2}}),)), None)
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(BadRequest, match="cannot be stored"):
        store.set_settings(ME, chat, {"x": nested})
    assert store.path(ME, chat) == []


# ---- the tree ----------------------------------------------------------------------------


def test_retry_makes_a_branch_and_activate_goes_back(store):
    chat = store.create(ME)
    question, answer = grow(store, chat, "q", "a1")
    retry = store.append(ME, chat, say("a2"), question)
    assert texts(store, chat) == ["q", "a2"]
    assert [n.branch for n in store.path(ME, chat)] == [(0, 1), (1, 2)]
    assert store.siblings(ME, chat, answer) == [answer, retry]
    store.activate(ME, chat, answer)
    assert texts(store, chat) == ["q", "a1"]
    assert store.path(ME, chat)[-1].branch == (0, 2)


def test_activate_goes_to_the_newest_leaf_under_the_node(store):
    chat = store.create(ME)
    first, *_ = grow(store, chat, "q1", "a1", "q2", "a2")
    grow(store, chat, "edited q1", "b1")
    grow(store, chat, "q3", "a3", parent=store.path(ME, chat, leaf=first + 1)[-1].id)
    store.activate(ME, chat, first + 4)
    assert texts(store, chat) == ["edited q1", "b1"]
    store.activate(ME, chat, first)
    assert texts(store, chat) == ["q1", "a1", "q3", "a3"]
    assert texts(store, chat, leaf=first + 3) == ["q1", "a1", "q2", "a2"]


def test_an_edited_first_message_is_a_second_root(store):
    chat = store.create(ME)
    first = store.append(ME, chat, user("one"), None)
    second = store.append(ME, chat, user("two"), None)
    assert texts(store, chat) == ["two"]
    assert store.siblings(ME, chat, first) == [first, second]


def test_undo_ends_the_branch_earlier_and_keeps_the_rest(store):
    chat = store.create(ME)
    nodes = grow(store, chat, "q1", "a1", "q2", "a2")
    store.rewind(ME, chat, nodes[1])
    assert texts(store, chat) == ["q1", "a1"]
    store.append(ME, chat, user("q2'"), nodes[1])
    assert store.path(ME, chat)[-1].branch == (1, 2)
    store.rewind(ME, chat, None)
    assert store.path(ME, chat) == []
    store.activate(ME, chat, nodes[2])
    assert texts(store, chat) == ["q1", "a1", "q2", "a2"]


def test_a_parent_of_another_conversation_is_not_found(store):
    chat, elsewhere = store.create(ME), store.create(ME)
    node = store.append(ME, elsewhere, user("there"), None)
    for strange in (node, -1, 2**70, "1", 1.5):
        with pytest.raises(NotFound, match="no such message"):
            store.append(ME, chat, user("here"), strange)
    assert store.path(ME, chat) == []


def test_a_whole_conversation_is_restored_or_nothing(store):
    chat = store.restore(ME, MESSAGES, "Imported", {"system": "s"})
    assert [node.message for node in store.path(ME, chat)] == MESSAGES
    assert store.settings(ME, chat) == {"system": "s"} and store.list(ME)[0].title == "Imported"
    bad = Message("assistant", calls=(ToolCall("f", {"x": {1}}),))
    with pytest.raises(BadRequest):
        store.restore(ME, [user("a"), bad])
    assert len(store.list(ME)) == 1


# ---- the list ----------------------------------------------------------------------------


def test_the_list_is_newest_first_with_turns_of_the_active_branch(store):
    old = store.create(ME, "Old")
    new = store.create(ME, "New", model="adapter")
    assert [s.id for s in store.list(ME)] == [new, old]
    nodes = grow(store, old, "q1", "a1", "q2", "a2")
    assert [(s.title, s.turns, s.model) for s in store.list(ME)] == [
        ("Old", 2, "base"),
        ("New", 0, "adapter"),
    ]
    store.rewind(ME, old, nodes[0])
    assert store.list(ME)[0].turns == 1
    assert store.summary(ME, old) == store.list(ME)[0]
    store.append(ME, old, say("x"), nodes[0], TURN)
    assert store.list(ME)[0].model == TURN.model


def test_the_first_question_becomes_the_title(store):
    chat = store.create(ME)
    grow(store, chat, "  Wie\n ist das Wetter? " + "x" * 100, "a", "second")
    title = store.list(ME)[0].title
    assert title.startswith("Wie ist das Wetter? xx") and title.endswith("…") and len(title) == 60
    store.rename(ME, chat, "\ud800 My\0 chat\n")
    assert store.list(ME)[0].title == "? My chat"


@pytest.mark.parametrize("indexed", [True, False])
def test_search_finds_words_in_titles_and_messages_of_any_branch(tmp_path, indexed):
    with Store(tmp_path / "chats.db") as store:
        store._db.searchable &= indexed
        weather = store.create(ME, "Weather 100%")
        root, _ = grow(store, weather, "明天北京的天气怎么样", "Sunny, C:\\temp")
        store.append(ME, weather, say('Cloudy "now" a_b'), root)
        other = store.create(ME, "Empty")
        store.create(OTHER, "天气 Weather")
        found = {
            query: [s.id for s in store.list(ME, query)]
            for query in [
                "天气",
                "北京的天气",
                "wEATHER",
                "sunny 天气",
                '"now"',
                "a_b",
                "100%",
                "C:\\t",
            ]
        }
        assert all(ids == [weather] for ids in found.values()), found
        for nothing in ["sunny rain", "axb", "100_", '" OR "', "a* NEAR(", "content:x", "明年北京"]:
            assert store.list(ME, nothing) == []
        assert {s.id for s in store.list(ME, "  ")} == {weather, other}
        assert store.list(ME, "' ; DROP TABLE nodes; -- \0 \ud800 ") == []
        assert store.list(ME, "x" * 100_000) == []


def test_a_deleted_message_is_not_found_by_search(store):
    chat = store.create(ME)
    grow(store, chat, "xylophone")
    assert store.list(ME, "xylophone")
    store.delete(ME, chat)
    again = store.create(ME)
    grow(store, again, "drum")
    assert store.list(ME, "xylophone") == []


# ---- owners ------------------------------------------------------------------------------


def test_somebody_elses_conversation_does_not_exist(store):
    chat = store.create(ME, "secret", system="s")
    node = store.append(ME, chat, user("q"), None)
    calls = {
        "summary": lambda who, cid: store.summary(who, cid),
        "path": lambda who, cid: store.path(who, cid),
        "append": lambda who, cid: store.append(who, cid, user("x"), None),
        "rename": lambda who, cid: store.rename(who, cid, "x"),
        "delete": lambda who, cid: store.delete(who, cid),
        "activate": lambda who, cid: store.activate(who, cid, node),
        "rewind": lambda who, cid: store.rewind(who, cid, None),
        "siblings": lambda who, cid: store.siblings(who, cid, node),
        "feedback": lambda who, cid: store.feedback(who, cid, node, "like"),
        "pair": lambda who, cid: store.pair(who, cid, node, None, None),
        "settings": lambda who, cid: store.settings(who, cid),
        "set_settings": lambda who, cid: store.set_settings(who, cid, {}),
    }
    for name, call in calls.items():
        sentences = set()
        for who, cid in [(OTHER, chat), (OTHER, "unknown"), (ME, "\ud800"), ("", chat)]:
            with pytest.raises(NotFound) as caught:
                call(who, cid)
            sentences.add(str(caught.value))
        assert sentences == {"there is no such conversation"}, name
    assert store.list(OTHER) == [] and texts(store, chat) == ["q"]


def test_the_same_id_of_two_owners_is_two_conversations(store):
    store.create(ME, "mine", id="abc")
    store.create(OTHER, "theirs", id="abc")
    store.create(ME, "again", id="abc")
    assert [s.title for s in store.list(ME)] == ["mine"]
    store.delete(OTHER, "abc")
    assert [s.title for s in store.list(ME)] == ["mine"]
    for strange in ["", "a/b", "../x", "a\n", "x" * 65, "é"]:
        with pytest.raises(BadRequest, match="conversation id"):
            store.create(ME, id=strange)


def test_ids_are_long_random_and_fit_a_url(store):
    ids = {store.create(ME) for _ in range(50)}
    assert len(ids) == 50 and all(len(i) == 22 and Path(i).name == i for i in ids)


# ---- labelling and settings --------------------------------------------------------------


def test_feedback_is_kept_shown_listed_and_taken_back(store):
    chat, theirs = store.create(ME), store.create(OTHER)
    _, answer = grow(store, chat, "q", "a")
    other = store.append(OTHER, theirs, say("b"), None)
    store.feedback(ME, chat, answer, "like")
    store.feedback(ME, chat, answer, "dislike", "wrong \ud800")
    store.feedback(OTHER, theirs, other, "like")
    shown = store.path(ME, chat)[1].feedback
    assert (shown.value, shown.note) == ("dislike", "wrong ?")
    assert [(r.owner, r.node, r.value) for r in store.feedback_rows()] == [
        (ME, answer, "dislike"),
        (OTHER, other, "like"),
    ]
    (row,) = store.feedback_rows(ME)
    assert row.message == say("a") and row.conversation == chat
    store.feedback(ME, chat, answer, None)
    assert store.path(ME, chat)[1].feedback is None and store.feedback_rows(ME) == []
    with pytest.raises(BadRequest, match="'like', 'dislike' or None"):
        store.feedback(ME, chat, answer, "meh")


def test_pairs_keep_the_models_call_and_yours(store):
    chat = store.create(ME)
    node = store.append(ME, chat, say("x"), None)
    wrong, right = ToolCall("f", {"x": 1}, text="f(x=1)"), ToolCall("g", DEEP)
    store.pair(ME, chat, node, wrong, ToolCall("h"))
    store.pair(ME, chat, node, wrong, right)
    store.pair(ME, chat, node, None, right)
    store.pair(ME, chat, node, right, None)
    assert [(p.model_call, p.your_call) for p in store.pairs(ME)] == [
        (wrong, right),
        (None, right),
        (right, None),
    ]
    assert len(store.pairs()) == 3 and store.pairs(OTHER) == []


def test_settings_start_with_the_system_prompt_and_are_replaced(store):
    chat = store.create(ME, system="Be brief. \ud800")
    assert store.settings(ME, chat) == {"system": "Be brief. \ud800"}
    store.set_settings(ME, chat, {"sampling": {"top_p": 0.5}, "tools": ["a"], "x": None})
    assert store.settings(ME, chat) == {"sampling": {"top_p": 0.5}, "tools": ["a"], "x": None}


def test_deleting_a_conversation_removes_everything_of_it(store):
    chat, kept = store.create(ME), store.create(ME)
    grow(store, kept, "stays")
    parent = None
    store._db._writer.execute("PRAGMA synchronous = OFF")  # the test need not wait for the disk
    for _ in range(1500):  # longer than SQLite lets triggers nest
        parent = store.append(ME, chat, say("x"), parent)
    store.append(ME, chat, say("x"), parent, TURN)
    store.feedback(ME, chat, parent, "like")
    store.pair(ME, chat, parent, None, ToolCall("f"))
    store.delete(ME, chat)
    assert [s.id for s in store.list(ME)] == [kept] and texts(store, kept) == ["stays"]
    with sqlite3.connect(store._db.path) as db:
        tables = ["conversations", "nodes", "turns", "feedback", "pairs"]
        counts = [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]
    db.close()
    assert counts == [1, 1, 0, 0, 0]


# ---- speed -------------------------------------------------------------------------------


def test_a_path_of_500_turns_is_quick(store):
    chat = store.create(ME)
    parent = None
    store._db._writer.execute("PRAGMA synchronous = OFF")
    turn = TurnRecord(tuple(range(4096)), tuple(range(64)), Usage(), 1.0, "base", None, "stop")
    for place in range(500):
        question = store.append(ME, chat, user(f"question {place}"), parent)
        parent = store.append(ME, chat, say("answer " * 50), question, turn)
    started = time.thread_time()
    nodes = store.path(ME, chat)
    assert time.thread_time() - started < 0.5
    assert len(nodes) == 1000 and nodes[999].turn.prompt == turn.prompt


def test_a_list_of_5000_conversations_is_quick(store):
    with store._db.write() as db:
        for number in range(5000):
            db.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, 'base', 0, ?, '{}', ?)",
                (number + 1, ME, f"chat{number}", f"title {number}", number, number + 1),
            )
            db.execute(
                "INSERT INTO nodes VALUES (?, ?, NULL, 1, 0, 'user', ?, NULL, NULL)",
                (
                    number + 1,
                    number + 1,
                    f"今天{number}号天气 and some longer text of a message" * 5,
                ),
            )
    started = time.thread_time()
    assert len(store.list(ME)) == 5000
    assert len(store.list(ME, "天气")) == 5000
    assert [s.id for s in store.list(ME, "今天4321号")] == ["chat4321"]
    assert time.thread_time() - started < 2.0

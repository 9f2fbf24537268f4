"""The file under glm/store/: several writers, kills, full disks, damaged and foreign files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glm.errors import NotFound, StoreError
from glm.messages import Message
from glm.store import Store, database, schema

ME = "ann"


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "data" / "chats.db") as opened:
        yield opened


def user(text):
    return Message("user", text)


def texts(store, chat):
    return [node.message.content for node in store.path(ME, chat)]


def grow(store, chat, *contents):
    """User messages in a chain."""
    parent = None
    for content in contents:
        parent = store.append(ME, chat, user(content), parent)


def test_many_threads_write_and_read_at_once(store):
    chats = [store.create(ME) for _ in range(8)]
    failures = []

    def work(chat):
        try:
            parent = None
            for place in range(25):
                parent = store.append(ME, chat, user(f"{chat} {place}"), parent)
                assert texts(store, chat)[-1] == f"{chat} {place}"
                store.list(ME, chat)
        except (AssertionError, StoreError, NotFound) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(chat,)) for chat in chats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [s.turns for s in store.list(ME)] == [25] * 8


def test_two_programs_may_start_with_one_new_file(tmp_path):
    code = (
        "import sys; from glm.store import Store; from glm.messages import Message\n"
        "s = Store(sys.argv[1]); c = s.create('me', sys.argv[2])\n"
        "for i in range(10): s.append('me', c, Message('user', str(i)), None)\n"
        "s.close()"
    )
    path = tmp_path / "chats.db"
    programs = [
        subprocess.Popen([sys.executable, "-c", code, str(path), f"program {n}"]) for n in range(4)
    ]
    assert [p.wait(60) for p in programs] == [0] * 4
    with Store(path) as store:
        assert len(store.list("me")) == 4


def test_a_program_that_makes_the_tables_meanwhile_is_not_taken_for_a_foreign_one(
    tmp_path, monkeypatch
):
    path, others = tmp_path / "chats.db", []
    honest = database.Database._value

    def value(self, query):
        answer = honest(self, query)
        if "application_id" in query and not others:
            others.append(threading.Thread(target=lambda: Store(path).close()))
            others[0].start()
            others[0].join(0.3)  # enough to finish, where nothing makes it wait
        return answer

    monkeypatch.setattr(database.Database, "_value", value)
    Store(path).close()
    others[0].join(30)
    assert not others[0].is_alive()


WRITER = """
import sys
from glm.messages import Message, Usage
from glm.store import Store, TurnRecord
store = Store(sys.argv[1])
chat = store.create("me", id="chat")
turn = TurnRecord(tuple(range(3000)), (1, 2), Usage(), 0.1, "base", None, "stop")
parent = None
while True:
    parent = store.append("me", chat, Message("assistant", f"text {parent} " * 200), parent, turn)
    print(parent, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_finished(tmp_path, lines):
    path = tmp_path / "chats.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(lines):
        writer.stdout.readline()
    writer.kill()
    finished = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    last = max(map(int, finished), default=lines)
    with Store(path) as store:
        nodes = store.path("me", "chat")
        assert [n.id for n in nodes][:last] == list(range(1, last + 1))
        assert all(n.turn.prompt == tuple(range(3000)) for n in nodes)
        store.append("me", "chat", user("and on"), nodes[-1].id)
        assert store.list("me", "and on")[0].turns == 1


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "chats.db"
    path.write_bytes(b"these are my holiday notes\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database") as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("harm", ["hole", "half"])
def test_a_damaged_database_is_refused_and_left_alone(tmp_path, harm):
    path = tmp_path / "chats.db"
    with Store(path) as store:
        grow(store, store.create(ME), *["text " * 300] * 60)
    data = bytearray(path.read_bytes())
    if harm == "hole":
        data[4096 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4096)
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged") as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data


def test_a_database_of_another_program_is_refused(tmp_path):
    path = tmp_path / "chats.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE bookmarks (url)")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="another program"):
        Store(path)


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "chats.db"
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match=r"newer version.*update") as caught:
        Store(path)
    assert str(path) in str(caught.value)


def test_an_older_database_is_brought_up_to_date(tmp_path, monkeypatch):
    path = tmp_path / "chats.db"
    with Store(path) as store:
        chat = store.create(ME)
        grow(store, chat, "q", "a")
    more = "CREATE TABLE more (x);\nALTER TABLE nodes ADD COLUMN starred INTEGER;\n"
    monkeypatch.setattr(database, "MIGRATIONS", (*schema.MIGRATIONS, more))
    with Store(path) as store:
        assert texts(store, chat) == ["q", "a"]
        assert store._db._value("PRAGMA user_version") == len(schema.MIGRATIONS) + 1


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "chats.db"
    Store(path).close()
    broken = "CREATE TABLE more (x);\nALTER TABLE missing ADD COLUMN y;\n"
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(StoreError, match="missing"):
            Store(path)
    with Store(path) as store:
        assert store._db._value("SELECT count(*) FROM sqlite_master WHERE name = 'more'") == 0


def test_the_index_is_rebuilt_after_a_machine_without_the_tokenizer(tmp_path, monkeypatch):
    path = tmp_path / "chats.db"
    with Store(path) as store:
        grow(store, store.create(ME, "a"), "before")
    with monkeypatch.context() as patched:
        patched.setattr(database, "PROBE", "CREATE VIRTUAL TABLE temp.probe USING nothing(x)")
        with Store(path) as store:
            assert not store._db.searchable
            grow(store, store.create(ME, "b"), "meanwhile")
            store.delete(ME, store.list(ME, "before")[0].id)
            assert len(store.list(ME, "meanwhile")) == 1
    with Store(path) as store:
        assert store._db.searchable
        assert len(store.list(ME, "meanwhile")) == 1 and store.list(ME, "before") == []


def test_a_place_that_cannot_be_written_is_refused_with_its_name(tmp_path):
    (tmp_path / "file").write_text("x")
    places = [tmp_path / "file" / "chats.db", tmp_path, tmp_path / ("x" * 300)]
    if Path("/proc/self").exists():
        places.append(Path("/proc/chats.db"))  # read-only for root too
    for place in places:
        with pytest.raises(StoreError, match="--data-dir") as caught:
            Store(place)
        assert str(place) in str(caught.value)


def test_a_full_disk_is_a_sentence_and_the_store_lives_on(store):
    chat = store.create(ME)
    pages = store._db._value("PRAGMA page_count")
    store._db._value(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="make room on the disk"):
        store.append(ME, chat, user("x" * 100_000), None)
    store._db._value("PRAGMA max_page_count = 1000000")
    store.append(ME, chat, user("fits"), None)
    assert texts(store, chat) == ["fits"]


def test_nobody_else_may_read_the_file(store):
    grow(store, store.create(ME), "secret")
    for path in store._db.path.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0 or os.name == "nt"


def test_a_closed_store_says_so(store):
    chat = store.create(ME)
    store.close()
    store.close()
    for call in (lambda: store.path(ME, chat), lambda: store.rename(ME, chat, "x")):
        with pytest.raises(StoreError, match="closed"):
            call()

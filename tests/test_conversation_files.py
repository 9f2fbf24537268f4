"""demo/conversation_files.py: what is saved can be opened again, by its owner."""

from __future__ import annotations

import pytest

from demo.conversation_files import KINDS, open_file, save_text, transcript
from glm.errors import BadRequest, NotFound
from glm.messages import Message, ToolCall
from glm.store import Store

SPOKEN = [
    Message("user", "Rain in Paris? $x^2$"),
    Message("assistant", "I look.", (ToolCall("f", {"city": "巴黎"}, "1"),), thinking="hm"),
    Message("tool", "[1]", name="f", call_id="1"),
    Message("assistant", "没有。"),
]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "chats.db") as opened:
        yield opened


@pytest.mark.parametrize("kind", ["json", "markdown"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_saved_conversation_opens_again(store, tmp_path, kind, lang):
    chat = store.restore("ann", SPOKEN, "Weather: Paris?", {"system": "Be brief."})
    name, text = save_text(transcript(store, "ann", chat), kind, lang)
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    again = open_file(store, "bob", path)
    assert [node.message for node in store.path("bob", again)] == SPOKEN
    assert store.settings("bob", again) == {"system": "Be brief."}
    assert store.list("bob")[0].title == "Weather: Paris?"


def test_every_kind_has_a_file_name_and_text(store):
    chat = store.restore("ann", SPOKEN, "a/b")
    names = {kind: save_text(transcript(store, "ann", chat), kind)[0] for kind in KINDS}
    assert names == {"json": "a_b.json", "markdown": "a_b.md", "html": "a_b.html"}
    with pytest.raises(NotFound):
        transcript(store, "bob", chat)


def test_a_file_without_a_title_is_called_by_its_name(store, tmp_path):
    path = tmp_path / "old chat.md"
    path.write_bytes("## 用户\n你好\n## 助手\n你好！".encode("gb18030"))
    open_file(store, "ann", path)
    assert store.list("ann")[0].title == "old chat"


@pytest.mark.parametrize(
    "data, sentence",
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"hello", "headings"),
        (b"\x89PNG\0\0", "not a text"),
        (b'[{"role": "boss"}]', "message 1: unknown role"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(store, tmp_path, data, sentence):
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(BadRequest, match=sentence):
        open_file(store, "ann", path)
    assert store.list("ann") == []

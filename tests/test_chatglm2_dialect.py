"""ChatGLM2's prompt language."""

import pytest

from glm.dialects.chatglm2 import ChatGLM2
from glm.errors import BadRequest
from glm.messages import Conversation, Message, Text, ToolSpec
from glm.tokenizer import Tokenizer
from tests.shared_files import tokenizer_file


@pytest.fixture(scope="module")
def dialect():
    return ChatGLM2(Tokenizer(tokenizer_file()))


def test_rounds_are_numbered_from_one(dialect):
    turns = (Message("user", "你好"), Message("assistant", "好"), Message("user", "再见"))
    prompt = dialect.prompt(Conversation(turns))
    text = "[Round 1]\n\n问：你好\n\n答：好\n\n[Round 2]\n\n问：再见\n\n答："
    assert list(prompt[2:]) == dialect.tokenizer.encode(text)


def test_an_answer_is_text_up_to_eos(dialect):
    parser = dialect.parser()
    ids = [*dialect.tokenizer.encode(" 你好"), dialect.tokenizer.eos, 5]
    events = [e for i in ids for e in parser.feed([i])] + parser.finish()
    assert "".join(e.text for e in events if isinstance(e, Text)) == "你好"
    assert parser.message().content == "你好"


def test_tools_are_refused_with_a_way_out(dialect):
    with pytest.raises(BadRequest, match="open a ChatGLM3 model"):
        dialect.prompt(Conversation((Message("user", "x"),), (ToolSpec("f"),)))

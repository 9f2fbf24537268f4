"""ChatGLM-6B's prompt language."""

import itertools
import random
import re

import pytest

from glm.dialects.chatglm import ChatGLM
from glm.errors import BadRequest
from glm.messages import Conversation, Message, Text, ToolSpec
from tests.shared_files import ICE_TEXT
from tests.tiny_ice import ice

TALK = (Message("user", "你好"), Message("assistant", "好"), Message("user", "再见"))


@pytest.fixture(scope="module")
def dialect():
    return ChatGLM(ice())


def text_of(dialect, *messages):
    """What is encoded; ids equal those of the text."""
    ids = dialect.prompt(Conversation(messages))
    tokenizer = dialect.tokenizer
    assert ids[-2:] == (tokenizer.id("[gMASK]"), tokenizer.id("<sop>"))
    return list(ids[:-2])


def official_process_response(response):
    """As in the official modeling_chatglm.py."""
    response = response.strip().replace("[[训练时间]]", "2023年")
    for narrow, wide in zip([",", "!", ":", ";", r"\?"], "，！：；？", strict=True):
        response = re.sub(rf"([\u4e00-\u9fff]){narrow}", rf"\1{wide}", response)
        response = re.sub(rf"{narrow}([\u4e00-\u9fff])", rf"{wide}\1", response)
    return response


def read(dialect, ids, cuts=()):
    """The text of all events and the message."""
    parser, events = dialect.parser(), []
    for start, end in itertools.pairwise([0, *cuts, len(ids)]):
        events += parser.feed(ids[start:end])
    events += parser.finish()
    assert parser.finish() == []
    return "".join(e.text for e in events if isinstance(e, Text)), parser.message()


def test_a_question_without_a_history_stands_alone(dialect):
    assert text_of(dialect, Message("user", "你好")) == dialect.tokenizer.encode("你好")


def test_rounds_are_numbered_from_zero(dialect):
    text = "[Round 0]\n问：你好\n答：好\n[Round 1]\n问：再见\n答："
    assert text_of(dialect, *TALK) == dialect.tokenizer.encode(text)


def test_the_real_ids_of_a_prompt():
    if not ICE_TEXT.exists():
        return
    prompt = ChatGLM(ice()).prompt(Conversation((Message("user", "你好"),)))
    assert prompt == (5, 74874, 130001, 130004)


def test_a_system_text_stands_in_front(dialect):
    system = Message("system", "Be brief.")
    assert text_of(dialect, system, TALK[0]) == dialect.tokenizer.encode("Be brief.\n你好")
    text = "Be brief.\n[Round 0]\n问：你好\n答：好\n[Round 1]\n问：再见\n答："
    assert text_of(dialect, system, *TALK) == dialect.tokenizer.encode(text)


def test_training_learns_the_last_answer_and_its_end(dialect):
    tokenizer, answer = dialect.tokenizer, Message("assistant", "再见！")
    pieces = list(dialect.render(Conversation((*TALK, answer))))
    assert [p.learn for p in pieces] == [False, True]
    assert pieces[0].ids == dialect.prompt(Conversation(TALK))
    assert pieces[1].ids == (*tokenizer.encode("再见！"), tokenizer.id("<eop>"))
    silent = Message("assistant", "再见", learn=False)
    assert not any(p.learn for p in dialect.render(Conversation((*TALK, silent))))
    with pytest.raises(BadRequest, match="ends with an answer"):
        list(dialect.render(Conversation(TALK)))


def test_produced_ids_are_not_sent_again(dialect):
    ids = tuple(dialect.tokenizer.encode("x"))
    vocabulary = dialect.tokenizer.fingerprint
    made = Message("assistant", "好", ids=ids, vocabulary=vocabulary)
    assert text_of(dialect, TALK[0], made, TALK[2]) == text_of(dialect, *TALK)


@pytest.mark.parametrize(
    "conversation",
    [
        Conversation((Message("user", "x"),), (ToolSpec("f"),)),
        Conversation((Message("user", "x"), Message("tool", "y"))),
    ],
)
def test_tools_are_refused_with_a_way_out(dialect, conversation):
    with pytest.raises(BadRequest, match="open a ChatGLM3 model"):
        dialect.prompt(conversation)


def test_an_answer_is_text_up_to_eop(dialect):
    eop = dialect.tokenizer.id("<eop>")
    ids = [*dialect.tokenizer.encode("\n 你好 \n"), eop, *dialect.tokenizer.encode("more")]
    shown, message = read(dialect, ids)
    assert shown == message.content == "你好"


def test_punctuation_beside_chinese_becomes_full_width(dialect):
    ids = dialect.tokenizer.encode("你好！a,b; 世界：x?天气怎么样？")
    shown, message = read(dialect, ids)
    assert shown == message.content == "你好！a,b; 世界：x？天气怎么样？"


PARTS = [*",!:;?", " ", "\n", "  ", "你好", "天", "a", "1", "[", "[[", "]]", "[[训练时间]]", "👋"]


def test_an_answer_is_what_process_response_makes_of_it_however_it_is_split(dialect):
    source, tokenizer = random.Random(0), dialect.tokenizer
    for _ in range(300):
        text = "".join(source.choice(PARTS) for _ in range(source.randint(1, 10)))
        ids = tokenizer.encode(text)
        wanted = official_process_response(tokenizer.decode(ids))
        cuts = sorted(source.sample(range(len(ids)), k=min(4, len(ids))))
        for split in ((), cuts, range(len(ids))):
            shown, message = read(dialect, ids, split)
            assert shown == message.content == wanted, (text, list(split))


def test_an_answer_is_shown_as_it_arrives(dialect):
    parser, ids = dialect.parser(), dialect.tokenizer.encode("one two three four five")
    shown = [bool(parser.feed([i])) for i in ids]
    assert shown.count(True) > len(ids) // 2


def test_xray_marks_the_control_tokens_only(dialect):
    seen = dialect.xray(dialect.prompt(Conversation(TALK)))
    assert [token.text for token in seen if token.special] == ["[gMASK]", "<sop>"]
    assert all(token.role is None for token in seen)
    shown = "".join(token.text for token in seen if not token.special)
    assert "[Round 0]\n问:你好\n答:好\n" in shown

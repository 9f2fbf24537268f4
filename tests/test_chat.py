"""From a conversation to events over the engine contract."""

import pytest

from glm.chat import chat
from glm.dialects.chatglm3 import ChatGLM3
from glm.engines.fake import FakeEngine
from glm.errors import PromptTooLong
from glm.messages import Call, Conversation, Finish, Malformed, Message, Sampling, Text
from glm.tokenizer import Tokenizer
from tests.shared_files import tokenizer_file
from tests.test_chatglm3_dialect import WEATHER, answer

ASK = Conversation((Message("user", "hi"),))


@pytest.fixture(scope="module")
def dialect():
    return ChatGLM3(Tokenizer(tokenizer_file()))


def events_of(dialect, *script, sampling=None):
    return list(chat(FakeEngine(script), dialect, ASK, sampling))


def said(events):
    return "".join(e.text for e in events if isinstance(e, Text))


def test_an_answer_ends_with_one_finish_that_holds_the_turn(dialect):
    events = events_of(dialect, answer(dialect, ("", "你好!")))
    assert said(events) == "你好!"
    assert [e for e in events if isinstance(e, Finish)] == [events[-1]]
    assert (events[-1].reason, events[-1].message.content) == ("stop", "你好!")
    assert events[-1].usage.prompt == len(dialect.prompt(ASK))


def test_a_call_ends_with_calls(dialect):
    events = events_of(dialect, answer(dialect, ("get_weather", WEATHER), stop="<|observation|>"))
    assert [type(e) for e in events[-2:]] == [Call, Finish]
    assert events[-1].reason == "calls"


def test_a_malformed_call_is_no_call(dialect):
    ids = answer(dialect, ("f", "```python\nimport os\n```"), stop="<|observation|>")
    events = events_of(dialect, ids)
    assert any(isinstance(e, Malformed) for e in events)
    assert events[-1].reason == "stop"


def test_a_failing_engine_is_a_finish_with_its_sentence(dialect):
    events = events_of(dialect, RuntimeError("no luck"))
    assert (events[-1].reason, events[-1].error) == ("error", "no luck")


def test_length_is_told(dialect):
    events = events_of(dialect, answer(dialect, ("", "abc " * 50)), sampling=Sampling(max_tokens=9))
    assert (events[-1].reason, events[-1].usage.new) == ("length", 9)


def test_closing_gives_what_came_and_cancelled(dialect):
    stream = chat(FakeEngine([answer(dialect, ("", "abc " * 50))]), dialect, ASK)
    first = [e for _ in range(8) for e in stream.next()]
    stream.close()
    rest = list(stream)
    assert rest[-1].reason == "cancelled"
    assert rest[-1].message.content == said(first + rest)
    assert stream.next() == []


@pytest.mark.parametrize("stop", ["STOP", "ST", "OP tw"])
def test_a_stop_string_ends_the_answer_and_is_not_shown(dialect, stop):
    ids = answer(dialect, ("", "one STOP two"))
    events = events_of(dialect, ids, sampling=Sampling(stop=(stop, "never")))
    assert said(events) == "one STOP two".partition(stop)[0]
    assert (events[-1].reason, events[-1].message.content) == ("stop", said(events))


def test_text_that_only_looks_like_a_stop_string_is_shown(dialect):
    events = events_of(dialect, answer(dialect, ("", "one STO")), sampling=Sampling(stop=("STOP",)))
    assert said(events) == "one STO"
    assert events[-1].message.content == "one STO"


def test_a_prompt_over_the_context_is_refused_with_both_numbers(dialect):
    with pytest.raises(PromptTooLong, match=r"has \d+ tokens and the model's context holds 4;"):
        chat(FakeEngine([], context=4), dialect, ASK)

"""The tool loop: what goes back to the model, what never runs, and that it always ends."""

import queue
import signal
import subprocess
import sys
import time

import pytest

from glm.errors import BadRequest, PromptTooLong, QueueFull, ToolError
from glm.loop import LoopOptions, run
from glm.loop.replay import Mock, Recorder
from glm.messages import (
    Call,
    Conversation,
    Ended,
    Finish,
    Malformed,
    Message,
    Proposed,
    Returned,
    Round,
    Started,
    ToolCall,
    ToolResult,
)
from tests.scripted_tools import (
    ASK,
    TOOL,
    Box,
    Play,
    answer,
    call,
    calls,
    dialect,
    of,
    say,
    texts,
)


def calculator(call, _):
    left, _, right = call.arguments["expression"].partition("*")
    return int(left) * int(right)


@pytest.fixture
def box():
    return Box({"calculator": calculator, "echo": lambda call, _: call.arguments.get("x", "")})


SIX_SEVEN = "expression='6*7'"


def test_a_result_goes_back_and_the_model_answers(box):
    play = Play([call("calculator", SIX_SEVEN, "I compute."), say("It is 42.")], box)
    events = play.events()
    kinds = [type(e) for e in events if isinstance(e, Round | Proposed | Started | Returned)]
    assert kinds == [Round, Proposed, Started, Returned, Round]
    ended = events[-1]
    assert (ended.reason, ended.error, ended.corrections) == ("stop", "", ())
    assert ended is play.stream.ended and play.stream.next() == []
    assert texts(ended.messages) == ["42"]
    assert texts(ended.messages, "assistant") == ["I compute.", "It is 42."]
    assert of(Returned, events)[0].result.seconds > 0
    assert [made.finish.reason for made in play.stream.answered.values()] == ["calls", "stop"]
    assert list(play.stream.answered) == [0, 2]


def test_the_next_prompt_is_the_one_before_and_the_produced_ids_and_the_observation(box):
    made = call("calculator", SIX_SEVEN)
    play = Play([made, say("42")], box)
    ended = play.events()[-1]
    first, second = play.prompts
    assert second[: len(first) + len(made)] == (*first, *made)
    asked = Conversation(ASK.messages + ended.messages[:2], box.specs())
    assert second == dialect().prompt(asked)
    assert all(conversation.tools == box.specs() for conversation in play.asked)


def test_several_calls_run_in_order_and_each_id_is_its_own(box):
    """Row 5 of the bad inputs: parallel calls, two of them to the same tool."""
    twice = calls(("echo", "x='a'"), ("echo", "x='b'"), ("calculator", SIX_SEVEN))
    play = Play([twice, call("echo", "x='c'"), say("done")], box)
    events = play.events()
    messages = events[-1].messages
    assert texts(messages) == ["a", "b", "42", "c"]
    ids = [c.id for message in messages for c in message.calls]
    assert len(set(ids)) == 4 and all(ids)
    assert [m.call_id for m in messages if m.role == "tool"] == ids
    assert [e.call.id for e in of(Call, events)] == ids
    finishes = of(Finish, events)
    assert [c.id for finish in finishes for c in finish.message.calls] == ids


@pytest.mark.parametrize(
    ("blocks", "named"),
    [
        ([("calculator", "```python\ntool_call(expression='6*7'\n```")], "calculator"),
        ([("calculator", "```python\ntool_call(x=__import__('os').getpid())\n```")], "plain value"),
        ([("calculator", '{"expression": ')], "not JSON"),
        ([("calculator", "{}{")], "not JSON"),
        ([("calculator", "")], "without a call"),
        ([("", "no name")], "a tool's name"),
    ],
)
def test_what_is_no_call_is_told_to_the_model_and_never_runs(box, blocks, named):
    """Rows 1 and 2."""
    play = Play([answer(dialect(), *blocks, stop=TOOL), say("Sorry.")], box)
    events = play.events()
    assert of(Malformed, events) and not box.ran
    [returned] = of(Returned, events)
    assert returned.result.error and named in returned.result.text
    assert texts(events[-1].messages) == [f"Error: {returned.result.text}"]
    assert (events[-1].reason, events[-1].messages[-1].content) == ("stop", "Sorry.")


def test_without_tools_what_looks_like_a_call_is_an_answer():
    text = "```python\nprint(1)\n```"
    play = Play([answer(dialect(), ("python", text))], Box({}))
    [turn] = play.events()[-1].messages
    assert text in turn.content


@pytest.mark.parametrize("name", ["Calculator", "rm", "echo", "__class__"])
def test_an_unknown_name_is_told_and_never_dispatched(box, name):
    """Row 3: unknown, wrong case, not enabled."""
    known = Box({"calculator": calculator})
    play = Play([call(name, SIX_SEVEN), say("ok")], known)
    ended = play.events()[-1]
    assert not known.ran and ended.reason == "stop"
    [text] = texts(ended.messages)
    assert f"no tool {name} here; available: calculator" in text
    assert ("write calculator" in text) == (name == "Calculator")


def test_a_denied_tool_is_told_and_never_dispatched(box):
    box.policies["calculator"] = "deny"
    events = Play([call("calculator", SIX_SEVEN), say("ok")], box).events()
    assert of(Proposed, events)[0].policy == "deny"
    assert not box.ran and not of(Started, events)
    assert "not allowed" in texts(events[-1].messages)[0]


def test_a_model_that_calls_for_ever_is_stopped_with_a_reason(box):
    """Row 8."""
    play = Play([call("echo", f"x={n}", f"Try {n}.") for n in range(9)], box, rounds=3)
    events = play.events()
    assert [(e.number, e.last) for e in of(Round, events)] == [
        (1, False), (2, False), (3, False), (4, True)
    ]  # fmt: skip
    assert play.asked[-1].tools == () and len(box.ran) == 3
    ended = events[-1]
    assert ended.reason == "rounds" and "3 rounds" in ended.error
    assert (ended.messages[-1].content, ended.messages[-1].calls) == ("Try 3.", ())


def test_eight_rounds_are_the_default(box):
    events = Play([call("echo")] * 20, box).events()
    assert len(of(Round, events)) == 9
    assert events[-1].messages[-1].role == "tool"  # the last answer had no word


@pytest.fixture
def hanging():
    """A tool that hangs with a process of its own; `children` are the processes."""
    children = queue.Queue()

    def hang(_, cancel):
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        children.put(process)
        cancel.on_set(process.kill)
        return process.wait()

    box = Box({"hang": hang})
    box.children = children
    return box


def test_a_tool_that_hangs_is_ended_at_its_limit_and_the_chat_goes_on(hanging):
    """Row 9, the side of the loop."""
    events = Play([call("hang"), say("No answer.")], hanging, tool_seconds=0.5).events()
    [returned] = of(Returned, events)
    assert returned.result.error and "longer than 0.5 s" in returned.result.text
    assert hanging.children.get(timeout=20).wait(20) == -signal.SIGKILL
    assert (events[-1].reason, events[-1].messages[-1].content) == ("stop", "No answer.")


def test_a_tool_whose_own_limit_is_longer_gets_that():
    box = Box({"slow": lambda _, cancel: f"told to end: {cancel.wait(0.2)}"})
    box.limits["slow"] = 60
    play = Play([call("slow"), say("ok")], Mock(Recorder(box), {}), tool_seconds=0.001)
    [returned] = of(Returned, play.events())
    assert (returned.result.error, returned.result.text) == (False, "told to end: False")


def test_a_reader_never_waits_longer_than_it_said():
    play = Play([call("hang"), say("ok")], Box({"hang": lambda _, cancel: cancel.wait(60)}))
    play.until(Started)
    assert play.stream.next(0) == [] == play.stream.next(0.01)
    play.stream.close()
    assert play.events()[-1].reason == "cancelled"


KEY = "sk-secret"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError(f"/home/me/{KEY}"), "broken failed (RuntimeError)"),
        (SystemExit(1), "broken failed (SystemExit)"),
        (ToolError("the city is unknown"), "the city is unknown"),
    ],
)
def test_a_tool_that_raises_is_one_line_without_its_insides(error, text, caplog):
    """Row 11."""

    def broken(*_):
        raise error

    events = Play([call("broken"), say("ok")], Box({"broken": broken})).events()
    assert texts(events[-1].messages) == [f"Error: {text}"]
    assert KEY not in repr(events) and "Traceback" not in repr(events)
    assert events[-1].reason == "stop"


def test_a_toolbox_that_answers_nothing_is_an_error(caplog):
    box = Box({"echo": lambda *_: ""})
    box.call = lambda *_: None
    events = Play([call("echo"), say("ok")], box).events()
    assert of(Returned, events)[0].result.error


# ---- the end --------------------------------------------------------------------------------


def test_closing_ends_the_tool_and_its_child_and_every_call_has_an_observation(hanging):
    play = Play([calls(("hang", ""), ("hang", ""))], hanging)
    play.until(Started)
    process = hanging.children.get(timeout=20)
    play.stream.close()
    play.stream.close()
    ended = play.events()[-1]
    assert process.wait(20) == -signal.SIGKILL
    assert ended.reason == "cancelled" and len(play.prompts) == 1
    assert ["stopped" in text for text in texts(ended.messages)] == [True, True]
    assert len(hanging.ran) == 1


def test_closing_ends_an_answer_and_keeps_what_was_said(box):
    play = Play([say("word " * 50)], box, pause=0.001)
    while not (text := "".join(getattr(e, "text", "") for e in play.stream.next(1))):
        pass
    play.stream.close()
    ended = play.events()[-1]
    assert ended.reason == "cancelled"
    assert ended.messages[0].content.startswith(text)


def test_closing_before_anything_was_read_ends(box):
    play = Play([say("hi")], box)
    play.stream.close()
    assert play.events() == [Ended("cancelled", ())]


def test_dropping_the_stream_ends_the_tool(hanging):
    play = Play([call("hang")], hanging)
    play.until(Started)
    process = hanging.children.get(timeout=20)
    del play.stream
    assert process.wait(20) == -signal.SIGKILL


def test_a_tool_that_has_returned_is_not_told_to_end(box):
    seen = []
    box.tools = {"keep": lambda _, cancel: seen.append(cancel) or "kept"}
    play = Play([call("keep"), say("ok")], box)
    play.until(Returned)
    play.stream.close()
    play.events()
    assert not seen[0].is_set()


@pytest.mark.parametrize("pause", [{}, {"step": True}])
def test_a_deadline_ends_it_all_and_says_so(pause):
    hang = Box({"hang": lambda _, cancel: cancel.wait(60)})
    asked = ASK.add(Message("assistant", calls=(ToolCall("hang"),)))
    play = Play([say("ok")], hang, asked, deadline=time.monotonic() + 0.2, **pause)
    ended = play.events()[-1]
    assert ended.reason == "cancelled" and "time limit" in ended.error
    assert len(play.prompts) == 0 and len(texts(ended.messages)) == 1


def test_a_deadline_ends_an_answer_that_does_not_come(box):
    play = Play([say("word")], box, pause=60, deadline=time.monotonic() + 0.2)
    assert play.events()[-1].reason == "cancelled"


def test_a_model_that_fails_later_ends_with_what_there_is(box):
    events = Play([call("echo", "x=1"), RuntimeError("no luck")], box).events()
    assert (events[-1].reason, events[-1].error) == ("error", "no luck")
    assert texts(events[-1].messages) == ["1"]


def test_a_question_that_is_refused_raises_and_a_later_refusal_ends(box):
    def refuse(_):
        raise QueueFull(2)

    with pytest.raises(QueueFull):
        run(refuse, ASK, box)
    play = Play([call("echo", "x=1"), say("ok")], box)
    play.until(Returned)
    play.engine.context = 5
    sentence = str(PromptTooLong(1, 5))[-40:]
    ended = play.events()[-1]
    assert ended.reason == "error" and sentence in ended.error
    assert texts(ended.messages) == ["1"]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rounds": 2.5}, {"tool_seconds": float("nan")}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(BadRequest, match=next(iter(wrong))):
        LoopOptions(**wrong)


# ---- forks, the interpreter -------------------------------------------------------


def test_a_conversation_that_ends_with_open_calls_begins_with_them(box):
    open_calls = (ToolCall("echo", {"x": "a"}, "1"), ToolCall("echo", {"x": "b"}, "2"))
    turn = Message("assistant", calls=open_calls)
    fork = Conversation((*ASK.messages, turn, Message("tool", "other", "", call_id="1")))
    play = Play([say("done")], box, fork)
    events = play.events()
    assert play.stream.conversation.messages == ASK.messages
    assert [c.id for c in box.ran] == ["2"]
    assert texts(events[-1].messages) == ["other", "b"]
    assert list(play.stream.answered) == [3]


def test_a_conversation_that_ends_with_an_observation_goes_on_from_it(box):
    turn = Message("assistant", calls=(ToolCall("echo", {"x": "a"}, "1"),))
    fork = Conversation((*ASK.messages, turn, Message("tool", "edited", call_id="1")))
    play = Play([say("done")], box, fork)
    assert [m.content for m in play.events()[-1].messages] == ["done"]
    assert not box.ran


def test_code_goes_to_the_interpreter_and_its_output_back():
    code = "```python\nprint(6 * 7)\n```"
    box = Box({"interpreter": lambda call, _: ToolResult(f"ran {call.arguments['code']}")})
    made = answer(dialect(), ("", "I run it."), ("interpreter", code), stop=TOOL)
    play = Play([made, say("42")], box)
    assert texts(play.events()[-1].messages) == ["ran print(6 * 7)"]
    assert play.prompts[1][len(play.prompts[0]) :][: len(made)] == tuple(made)

"""Sessions with tools that repeat offline: recorded, replayed, mocked."""

import json

import pytest

from glm.errors import BadRequest
from glm.loop import Cancel
from glm.loop.replay import Mock, Recorder, Replay, read_step, step
from glm.messages import Image, Proposed, Returned, Table, ToolCall, ToolResult
from tests.scripted_tools import Box, Play, call, calls, of, say, texts

SCRIPT = [calls(("draw", "n=1"), ("draw", "n=1"), ("draw", "n=2")), call("fail"), say("done")]


@pytest.fixture
def box():
    counter = iter(range(100))
    return Box(
        {
            "draw": lambda call, _: f"{next(counter)} of {call.arguments['n']}",
            "fail": lambda *_: ToolResult("no luck", error=True),
        }
    )


def test_a_recorded_session_repeats_without_its_tools(box):
    recorder = Recorder(box)
    first = Play(SCRIPT, recorder).events()
    steps = json.loads(json.dumps(recorder.steps))
    silent = Box(dict.fromkeys(box.tools))
    events = Play(SCRIPT, Replay(silent, steps)).events()
    assert texts(events[-1].messages) == texts(first[-1].messages)
    assert texts(events[-1].messages) == ["0 of 1", "1 of 1", "2 of 2", "Error: no luck"]
    results = [e.result for e in of(Returned, events)]
    assert {r.recorded for r in results} == {"replay"}
    assert [r.error for r in results] == [False, False, False, True]
    assert silent.ran == []


def test_a_call_that_was_not_recorded_is_an_error_or_runs(box):
    steps = [step(ToolCall("draw", {"n": 1}), ToolResult("old"))]
    script = [calls(("draw", "n=1"), ("draw", "n=1"), ("draw", "n=True")), say("done")]
    events = Play(script, Replay(box, steps)).events()
    old, *others = [e.result for e in of(Returned, events)]
    assert old.text == "old" and all(r.error and "recorded" in r.text for r in others)
    assert box.ran == []
    events = Play(script, Replay(box, steps, missing_runs=True)).events()
    assert texts(events[-1].messages) == ["old", "0 of 1", "1 of True"]


def test_nobody_is_asked_where_nothing_runs_and_a_denied_tool_stays_denied(box):
    box.policies |= {"draw": "ask", "fail": "deny"}
    for toolbox in (Replay(box, []), Mock(box, {"draw": "7", "fail": "x", "rm": "y"})):
        names = ("draw", "fail", "rm")
        assert [toolbox.policy(name) for name in names] == ["allow", "deny", "deny"]
        assert toolbox.specs() == box.specs()
    assert Replay(box, [], missing_runs=True).policy("draw") == "ask"
    assert Recorder(box).policy("draw") == "ask"


def test_a_mocked_tool_gives_its_fixed_answer_and_others_run(box):
    script = [calls(("fail", ""), ("draw", "n=1"), ("rm", "")), say("done")]
    events = Play(script, Mock(box, {"fail": "fine", "rm": "gone"})).events()
    results = [e.result for e in of(Returned, events)]
    assert [r.text for r in results[:2]] == ["fine", "0 of 1"]
    assert [r.recorded for r in results] == ["mock", "", ""]
    assert results[2].error and of(Proposed, events)[2].policy == "deny"
    assert [c.name for c in box.ran] == ["draw"]


def test_a_step_is_json_and_comes_back_as_it_was():
    result = ToolResult(
        "text \ud83d 文",
        error=True,
        images=(Image(b"\x89PNG\0", "image/png"),),
        table=Table(("a", "b"), ((1, "x"), (None, 2.5))),
        seconds=0.25,
    )
    asked = ToolCall("f", {"x": [1, {"y": None}], "文": True})
    written = json.loads(json.dumps(step(asked, result), allow_nan=False))
    found, again = read_step(0, written)
    assert (found.name, found.arguments, again) == ("f", asked.arguments, result)


def test_what_json_does_not_know_is_recorded_as_text():
    odd = ToolResult("t", table=Table(("a",), ((float("nan"),), (b"x",), ({1},))))
    written = json.dumps(step(ToolCall("f", {"x": float("inf")}), odd), allow_nan=False)
    assert read_step(0, json.loads(written))[1].table.rows == (("NaN",), ("b'x'",), ("{1}",))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        "text",
        {"name": "f", "arguments": {}, "result": {"text": 5}},
        {"name": "f", "arguments": 5, "result": {"text": "t"}},
        {"name": "f", "arguments": {}, "result": {"text": "t", "images": [{"data": "?"}]}},
        {"name": "f", "arguments": {}, "result": {"text": "t", "table": [1]}},
        {"name": ["f"], "arguments": {}, "result": {"text": "t"}},
        {"name": "f", "arguments": {}, "result": {"text": "t", "seconds": 10**400}},
    ],
)
def test_a_file_that_is_no_recording_is_refused_by_the_number_of_its_step(box, wrong):
    good = step(ToolCall("f"), ToolResult("t"))
    with pytest.raises(BadRequest, match="step 2 is no recorded call"):
        Replay(box, [good, wrong])


def test_a_call_that_was_ended_is_not_recorded(box):
    recorder, cancel = Recorder(box), Cancel()
    cancel.set()
    assert recorder.call(ToolCall("fail"), cancel).error
    assert recorder.steps == []

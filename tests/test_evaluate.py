"""Evaluation: recorded conversations are played again, and the answers are judged by their kind."""

import json
from dataclasses import replace

import pytest

from finetune import evaluate as program
from finetune.evaluate import evaluate, read
from finetune.files.rows import open_rows
from finetune.scoring.exchanges import exchanges, play
from finetune.scoring.scorecard import figures, score, table
from glm.chat import Options, chat
from glm.checkpoint.recognise import EMBEDDED
from glm.engines.fake import FakeEngine
from glm.errors import BadRequest, EngineError
from glm.messages import Conversation, Message, ToolCall, ToolSpec
from tests.scripted_tools import TOOL, body, dialect
from tests.test_chatglm3_dialect import answer

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (ToolSpec("get_weather", "weather", CITY), ToolSpec("get_time", "time", CITY))


def user(text):
    return Message("user", text)


def said(text, **more):
    return Message("assistant", text, **more)


def called(*calls, thought=""):
    calls = tuple(ToolCall(name, {"city": city}, f"id-{city}") for name, city in calls)
    return Message("assistant", thought, calls=calls)


def seen(text, city=""):
    return Message("tool", text, call_id=f"id-{city}" if city else "")


ASKED = user("Oslo?")
CALL, RESULT, END = called(("get_weather", "Oslo")), seen("sunny", "Oslo"), said("It is sunny.")
ROW = Conversation((ASKED, CALL, RESULT, END), TOOLS)
PLAIN = Conversation((user("hi"), said("hello"), user("bye"), said("see you")))
ABSTAIN = Conversation((user("hi"), said("hello")), TOOLS)


def ids(message):
    """What a model writes that answers with this message."""
    d = dialect()
    blocks = [("", message.content)] if message.content or not message.calls else []
    for call in message.calls:
        text = call.text or body(", ".join(f"{k}={v!r}" for k, v in call.arguments.items()))
        blocks.append((call.name, text))
    return answer(d, *blocks, stop=TOOL if message.calls else "<|user|>")


class Model:
    """Answers by a function of the conversation; `asked` keeps what it was asked."""

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    def __call__(self, conversation):
        self.asked.append(conversation)
        reply = self.reply(conversation)
        script = reply if isinstance(reply, Exception) else ids(reply)
        return chat(FakeEngine([script]), dialect(), conversation, options=Options())


def recorded(*conversations):
    """A model that says what was recorded after these messages."""
    known = {}
    for conversation in conversations:
        for place, message in enumerate(conversation.messages):
            if message.role == "assistant":
                known[_key(conversation.messages[:place])] = message
    return lambda asked: known[_key(asked.messages)]


def _key(messages):
    return tuple((m.role, m.content, tuple((c.name, str(c.arguments)) for c in m.calls))
                 for m in messages)  # fmt: skip


def rows(*conversations):
    return [(n, f"row {n}", one) for n, one in enumerate(conversations)]


def values(found, way="free"):
    return {
        f"{kind} {name}": figure.value
        for kind, some in figures(found.cases, way).items()
        for name, figure in some.items()
    }


# ---- exchanges


def test_every_answer_is_wanted_with_what_stands_before_it():
    first, second = exchanges(PLAIN)
    assert first.asked.messages == PLAIN.messages[:1] and first.turns == PLAIN.messages[1:2]
    assert second.asked.messages == PLAIN.messages[:3]
    (one,) = exchanges(ROW)
    assert one.wanted == (0, 2) and one.calls == CALL.calls
    assert one.before(2).messages == ROW.messages[:3]


def test_turns_that_the_file_says_not_to_learn_are_not_asked_for():
    silent = Conversation((user("a"), said("b", learn=False), user("c"), said("d")))
    assert [one.turns[0].content for one in exchanges(silent)] == ["d"]
    call = replace(CALL, learn=False)
    (one,) = exchanges(Conversation((ASKED, call, RESULT, END), TOOLS))
    assert one.asked.messages == (ASKED, call, RESULT) and one.wanted == (0,)


@pytest.mark.parametrize(
    "messages", [(), (user("a"),), (said("a"),), (said("a"), user("b")), (Message("system", "x"),)]
)
def test_nothing_is_wanted_where_nothing_follows_from_anything(messages):
    assert exchanges(Conversation(messages)) == []


def test_the_recorded_way_is_replayed_to_its_end():
    (one,) = exchanges(ROW)
    model = Model(recorded(ROW))
    played = play(one, model)
    assert played.done and all(given.replayed for given in played.given.values())
    assert [given.message.content for given in played.given.values()] == ["", "It is sunny."]
    assert model.asked[1].messages[-1].content == "sunny"
    assert all(asked.tools == TOOLS for asked in model.asked)


def test_a_call_that_means_the_same_gets_the_recorded_observation():
    (one,) = exchanges(ROW)
    spaced = called(("get_weather", " Oslo"))
    model = Model(lambda c: END if c.messages[-1].role == "tool" else spaced)
    assert play(one, model).done and model.asked[1].messages[-1].content == "sunny"


@pytest.mark.parametrize(
    "wrong",
    [
        called(("get_weather", "Bergen")),
        called(("get_time", "Oslo")),
        called(("get_weather", "Oslo"), ("get_time", "Oslo")),
        said("It is sunny."),
        Message("assistant", calls=(ToolCall("get_weather", text=body("city=")),)),
    ],
    ids=["argument", "tool", "one too many", "no call", "unreadable"],
)
def test_a_wrong_call_ends_the_replay_and_the_answer_is_asked_for_after_the_recorded_one(wrong):
    (one,) = exchanges(ROW)
    model = Model(lambda c: END if c.messages[-1].role == "tool" else wrong)
    played = play(one, model)
    assert not played.done
    assert [given.replayed for given in played.given.values()] == [True, False]
    assert played.given[2].message.content == "It is sunny."
    assert [len(asked.messages) for asked in model.asked] == [1, 3]
    assert model.asked[1].messages == ROW.messages[:3]


def test_a_model_that_never_stops_calling_is_stopped():
    (one,) = exchanges(ROW)
    model = Model(lambda c: CALL)
    played = play(one, model)
    assert not played.done and len(model.asked) == 2
    assert values(evaluate(rows(ROW), Model(lambda c: CALL)))["text rouge-1"] == 0.0


def test_several_calls_of_a_turn_get_each_its_own_observation():
    both = called(("get_weather", "Oslo"), ("get_weather", "Bergen"))
    swapped = replace(both, calls=both.calls[::-1])
    turns = (ASKED, both, seen("rain", "Bergen"), seen("sun", "Oslo"), END)
    (one,) = exchanges(Conversation(turns, TOOLS))
    model = Model(lambda c: END if c.messages[-1].role == "tool" else swapped)
    assert play(one, model).done
    assert [m.content for m in model.asked[1].messages[-2:]] == ["rain", "sun"]


def test_a_row_that_ends_with_a_call_is_done_with_it():
    (one,) = exchanges(Conversation((ASKED, CALL), TOOLS))
    model = Model(lambda c: CALL)
    assert play(one, model).done and len(model.asked) == 1


@pytest.mark.parametrize("error", [EngineError("broken"), BadRequest("too long")])
def test_an_answer_that_fails_is_wrong_and_says_why(error):
    def ask(conversation):
        raise error

    (one,) = exchanges(ROW)
    played = play(one, ask)
    assert not played.done and {given.error for given in played.given.values()} == {str(error)}
    scored = score(one, played)
    assert all(not s.part for some in scored.answers.values() for s in some.values())


# ---- figures


def test_a_model_that_says_what_was_recorded_has_one_everywhere():
    spo = Conversation((user("spo"), said('```json\n[{"s": "甲"}]\n```')))
    all_rows = (ROW, PLAIN, replace(ABSTAIN, messages=(user("yo"), said("yo!"))), spo)
    found = evaluate(rows(*all_rows), Model(recorded(*all_rows)))
    got = values(found)
    assert set(got.values()) == {1.0} and not found.notes
    assert {key.split()[0] for key in got} == {"text", "json", "calls", "tools"}


def test_abstaining_counts_where_tools_are_offered_and_none_was_called():
    found = evaluate(rows(ABSTAIN, ROW, PLAIN), Model(lambda c: CALL))
    (abstains,) = [f for n, f in figures(found.cases, "free")["tools"].items() if n == "abstains"]
    assert (abstains.value, abstains.number) == (0.0, 1)
    broken = Message("assistant", calls=(ToolCall("get_weather", text=body("city=")),))
    assert values(evaluate(rows(ABSTAIN), Model(lambda c: broken)))["tools abstains"] == 0.0
    assert values(evaluate(rows(ABSTAIN), Model(lambda c: said("no"))))["tools abstains"] == 1.0


def test_constrained_figures_stand_beside_the_free_ones_for_tools_only():
    free, bound = Model(lambda c: said("I cannot.")), Model(recorded(ROW))
    found = evaluate(rows(ROW, PLAIN), free, bound)
    assert set(found.figures["constrained"]) == {"calls", "tools"}
    assert len(bound.asked) == 2  # the exchange without tools was not played again
    lines = table(found.figures).splitlines()
    exact = next(line for line in lines[lines.index("tool calls") :] if "exact" in line)
    assert "0.000 [0.000-0.793] 1" in exact and "1.000 [0.207-1.000] 1" in exact
    assert "constrained" not in table({"free": figures(found.cases, "free"), "constrained": {}})


def test_tools_that_make_no_grammar_have_no_constrained_figures_and_are_counted():
    def refuse(conversation):
        raise BadRequest("the schema is too deep")

    found = evaluate(rows(ROW), Model(recorded(ROW)), refuse)
    assert found.figures["constrained"] == {} and list(found.cases[0].ways) == ["free"]
    assert found.notes == (
        "1 exchanges cannot be constrained, the first: row 0: the schema is too deep",
    )


def test_answers_that_failed_are_told_once_with_their_number():
    found = evaluate(rows(PLAIN), Model(lambda c: EngineError("out of memory")))
    (note,) = found.notes
    assert note == ("2 answers failed and count as wrong, the first: row 0: out of memory")


# ---- rows


def written(folder, *lines):
    file = folder / "rows.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return open_rows(file)


def test_some_rows_are_taken_evenly_over_the_file(tmp_path):
    lines = [json.dumps({"prompt": str(n), "response": "x"}) for n in range(10)]
    notes = []
    taken = list(read(written(tmp_path, *lines), "auto", 3, notes))
    assert [number for number, _, _ in taken] == [0, 3, 6]
    assert notes == ["3 of 10 rows, evenly over the file; --rows 0 takes all"]
    assert len(list(read(written(tmp_path, *lines), "auto", 0, []))) == 10


def test_rows_that_cannot_be_read_are_named_and_the_others_count(tmp_path):
    notes = []
    good = json.dumps({"prompt": "a", "response": "b"})
    taken = list(read(written(tmp_path, good, '{"x": 1}', good), "auto", 0, notes))
    assert [number for number, _, _ in taken] == [0, 2]
    assert "1 rows cannot be read: rows.jsonl, line 2" in notes[0]


# ---- the program


def test_the_embedded_model_is_scored_end_to_end(tmp_path, capsys):
    if not (EMBEDDED / "model.safetensors").exists():
        return
    data = tmp_path / "dev.jsonl"
    tool = {"role": "tool", "name": "get_weather", "parameters": {"city": "Oslo"},
            "observation": "sunny"}  # fmt: skip
    spec = {"name": "get_weather", "description": "Get the weather", "parameters": CITY}
    turns = [{"role": "user", "content": "weather in Oslo?"}, tool,
             {"role": "assistant", "content": "It is sunny."}]  # fmt: skip
    lines = [{"tools": [spec], "conversations": turns}, {"prompt": "hi", "response": "Hello!"}]
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    run = tmp_path / "run"
    report = run / "report.json"
    argv = [str(EMBEDDED), str(data), "--json", str(report), "--max-tokens", "24"]
    assert program.main([*argv, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "tool calls" in out and "constrained" in out and str(report) in out
    found = json.loads(report.read_text(encoding="utf-8"))
    first = found["exchanges"][0]
    assert first["asked"]["content"] == "weather in Oslo?"
    assert first["answers"][0]["wanted"]["calls"] == [
        {"name": "get_weather", "arguments": {"city": "Oslo"}}
    ]
    assert {"content", "reason", "scores"} <= set(first["answers"][0]["free"])
    assert first["answers"][0]["constrained"]["calls"][0]["name"] == "get_weather"
    assert found["exchanges"][1]["answers"][0]["kind"] == "text"
    assert found["figures"]["free"]["text"]["rouge-1"]["number"] == 2


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["/nowhere/model", "{data}"], "/nowhere/model"),
        ([str(EMBEDDED), "/nowhere/rows.jsonl"], "/nowhere/rows.jsonl"),
    ],
)
def test_what_is_not_there_is_a_sentence(tmp_path, capsys, argv, sentence):
    data = tmp_path / "dev.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n')
    assert program.main([word.format(data=data) for word in argv]) == 1
    assert sentence in capsys.readouterr().err

"""The forgetting probe: its rows, what counts as right, and what a run changed."""

import json
import re
from collections import Counter

import pytest

from finetune import probe as program
from finetune.pretrain.frozen import frozen_texts, normal
from finetune.pretrain.judge import misfit
from finetune.pretrain.score import offered
from finetune.probe import PARTS, Mark, Probe, before_and_after, points, probe, rows, table
from finetune.scoring.answering import Opened
from glm.checkpoint.recognise import EMBEDDED
from glm.engines.fake import FakeEngine
from glm.messages import Call, Finish, Message, Text, ToolCall
from tests.scripted_tools import dialect, say

ROWS = rows()
BY_TEXT = {(row["user"], bool(row["tools"])): row for row in ROWS}
EMBEDDED_SCORE = 0.70  # measured: 0.721 on the CPU in float32


def answer(text):
    return [Text(text), Finish("stop", Message("assistant", text))]


def perfect(conversation):
    last = conversation.messages[-1]
    if last.role == "tool":
        return answer(last.content)
    row = BY_TEXT[last.content, bool(conversation.tools)]
    if row["call"] is None:
        return answer(row.get("says", ["Hello."])[0])
    call = ToolCall(row["call"]["name"], row["call"]["arguments"])
    return [Call(call), Finish("calls", Message("assistant", calls=(call,)))]


# ---- the rows


def test_a_hundred_rows_in_both_languages_each_with_its_own_id():
    assert len({row["id"] for row in ROWS}) == len(ROWS) == 100
    for part, some in Counter(row["part"] for row in ROWS).items():
        chinese = sum(row["language"] == "zh" for row in ROWS if row["part"] == part)
        assert chinese == some / 2, part
    for row in ROWS:
        assert bool(re.search("[\u4e00-\u9fff]", row["user"])) == (row["language"] == "zh"), row


def test_no_row_is_in_the_frozen_set_of_the_embedded_model():
    assert not [row["id"] for row in ROWS if normal(row["user"]) in frozen_texts()]


def test_calls_fit_their_schemas_and_observations_hold_their_values():
    for row in ROWS:
        if row["call"]:
            spec = next(tool for tool in offered(row) if tool.name == row["call"]["name"])
            for arguments in (row["call"]["arguments"], *row.get("accept", ())):
                assert misfit(arguments, spec.parameters) == "", row["id"]
            assert all(value in row["observation"] for value in row.get("values", ()))


# ---- right and wrong


def test_a_perfect_model_has_everything():
    found = probe(perfect)
    assert found.share() == 1.0 and not found.problem
    assert {part: found.counts(part)[1] for part in PARTS} == {
        "calls": 40,
        "answers": 40,
        "abstain": 20,
        "chat": 32,
        "facts": 8,
    }


def test_a_model_that_says_one_thing_only_has_what_needs_no_more():
    found = probe(lambda conversation: answer("?"))
    assert {part: found.share(part) for part in PARTS} == {
        "calls": 0.0,
        "answers": 0.0,
        "abstain": 1.0,
        "chat": 0.0,
        "facts": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("It is Rome.", True),
        ("rome", True),
        ("Chrome", False),
        ("Paris", False),
        ("", False),
    ],
)
def test_a_word_counts_where_it_begins_a_word(text, right):
    row = next(row for row in ROWS if row.get("says") == ["Rome"])
    (mark,) = probe(lambda conversation: answer(text), [row]).marks
    assert mark.right is right


def test_why_an_answer_failed_is_told():
    broken = [Finish("error", Message("assistant"), error="out of memory")]
    found = probe(lambda conversation: broken, ROWS[:3])
    assert found.problem == "out of memory" and found.share() == 0.0


def test_a_base_and_its_adapter_are_asked_the_same():
    engine = FakeEngine(lambda request: say("Rome" if request.adapter else "Paris"))
    engine.add_adapter("mine#0", object())
    model = Opened(engine, dialect())
    model.layouts["mine#0"] = "prompt-response"
    before, after = before_and_after(model, "mine#0")
    asked = Counter(request.adapter for request in engine.seen)
    assert asked[None] == asked["mine#0"] == len(ROWS)
    assert {request.sampling.temperature for request in engine.seen} == {0.0}
    assert after.counts("facts")[0] - before.counts("facts")[0] == 1


# ---- what is shown


def marks(*right):
    return Probe(tuple(Mark(f"r{n}", "chat", one, "") for n, one in enumerate(right)))


def test_the_change_is_in_points_and_names_how_many_were_lost_and_gained():
    before, after = marks(True, True, False, False), marks(True, False, True, False)
    assert points(before, marks(True, False, False, False)) == -25.0
    text = table(before, after)
    assert "1 lost, 1 gained" in text
    assert re.search(r"^all +0\.500 \[.*\] 2/4 +0\.500 \[.*\] 2/4 +\+0\.0$", text, re.MULTILINE)
    assert "change" not in table(None, after) and "lost" not in table(None, after)


def test_the_embedded_model_is_probed_end_to_end(tmp_path, capsys):
    if not (EMBEDDED / "model.safetensors").exists():
        return
    file = tmp_path / "probe.json"
    assert program.main([str(EMBEDDED), "--device", "cpu", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))["after"]
    assert f"{found['all']:.3f}" in capsys.readouterr().out
    assert found["all"] >= EMBEDDED_SCORE and found["abstain"] == 1.0
    assert len(found["marks"]) == 140


def test_a_model_that_is_not_there_is_a_sentence(capsys):
    assert program.main(["/nowhere/model"]) == 1
    assert "/nowhere/model" in capsys.readouterr().err

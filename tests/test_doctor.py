"""The data doctor: every code it knows, by its line; size, lengths, repeats, exit codes."""

import json
import subprocess
import sys

import pytest

from finetune.checks import CHECKS, check, repeats
from finetune.checks.lengths import Ruler, ruler
from finetune.doctor import Question, examine, main
from finetune.files import row_index
from finetune.files.rows import open_rows
from finetune.formats import read_row
from glm.dialects import DIALECTS
from glm.messages import Conversation, Message
from glm.tokenizer import Tokenizer
from tests.format_rows import FUNCTION, ROWS, TOOL, TOOL_ROW, turn
from tests.shared_files import ROOT, tokenizer_file

USER, ANSWER, SYSTEM = turn("user", "u"), turn("assistant", "a"), turn("system", "s")
CALL = {**TOOL_ROW, "observation": "o"}
CODE = turn("interpreter", "1")
OFFERED = {"tools": [TOOL]}


def codes(row):
    return {problem.code for problem in check(read_row(row))}


def talk(*turns, **more):
    return {"conversations": [*turns], **more}


def written(tmp_path, rows, name="data.jsonl"):
    file = tmp_path / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def measured():
    return ruler(None, None, 100)


def look(tmp_path, measured, rows, dev=None):
    dev_rows = open_rows(written(tmp_path, dev, "dev.jsonl")) if dev else None
    return examine(Question(open_rows(written(tmp_path, rows)), measured, dev_rows))


def places(found, code):
    return [place for place, _ in found.places.get(code, [])]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (talk(USER, ANSWER), set()),
        (talk(SYSTEM, USER, ANSWER, USER, ANSWER), set()),
        (talk(ANSWER), {"first-turn"}),
        (talk(ANSWER, USER, ANSWER), {"first-turn"}),
        (talk(SYSTEM, SYSTEM, USER, ANSWER), {"second-system"}),
        (talk(USER, SYSTEM, ANSWER), {"late-system"}),
        (talk(SYSTEM, USER, ANSWER, SYSTEM), {"second-system", "late-system"}),
        (talk(USER, USER, ANSWER), {"roles"}),
        (talk(USER, ANSWER, ANSWER), {"roles"}),
        (talk(USER), {"open-end", "nothing-learnt"}),
        (talk(SYSTEM), {"nothing-learnt"}),
        (talk(USER, ANSWER, USER), {"open-end"}),
        (talk(USER, turn("assistant", " \n")), {"empty-answer"}),
        (talk(USER, turn("assistant", "a", loss=False)), {"nothing-learnt"}),
        (talk(USER, CALL, ANSWER, **OFFERED), set()),
        (talk(USER, ANSWER, CALL, ANSWER, **OFFERED), set()),
        (talk(USER, CALL, CALL, ANSWER, **OFFERED), set()),
        (talk(USER, TOOL_ROW, **OFFERED), set()),  # a call is an end: its result is not learnt
        (talk(USER, TOOL_ROW, USER, ANSWER, **OFFERED), {"roles"}),
        (talk(USER, CALL, **OFFERED), {"open-end"}),
        (talk(USER, turn("observation", "o"), ANSWER, **OFFERED), {"stray-observation"}),
        (talk(USER, CALL, ANSWER), {"no-tools"}),
        (talk(USER, CALL, ANSWER, tools=[]), {"no-tools"}),
        (talk(USER, CALL, ANSWER, tools=None), {"no-tools"}),
        (talk(USER, ANSWER, tools=[]), set()),
        (talk(SYSTEM, USER, ANSWER, tools=[]), set()),  # the block of no tools is no second system
        (talk(USER, ANSWER, **OFFERED), {"tools-unused"}),
        (talk(USER, {**CALL, "name": "other"}, ANSWER, **OFFERED), {"undeclared-tool"}),
        (talk(USER, {**CALL, "parameters": {}}, ANSWER, **OFFERED), {"arguments"}),
        (talk(USER, {**CALL, "parameters": {"city": 1}}, ANSWER, tools=[FUNCTION]), {"arguments"}),
        (talk(USER, CODE, turn("observation", "1"), ANSWER), set()),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_conversation_has_a_code(row, expected):
    assert codes(row) == expected


def test_functions_described_in_a_text_are_declared():
    several = "get_weather: x\nParameters: {}\nother: y\nParameters: {}\n"
    for tools in ([several], ["get_weather(city): weather of a city"]):
        assert codes(talk(USER, CALL, ANSWER, tools=tools)) == set()
    assert codes(talk(USER, {**CALL, "name": "x"}, ANSWER, tools=[several])) == {"undeclared-tool"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {"city": {"type": "Text"}}}, {"bad-schema"}),
        ({"type": "object", "properties": {"city": {"pattern": "("}}}, {"bad-schema"}),
        (
            {"type": "object", "properties": {"city": {"$ref": "http://x.invalid/y"}}},
            {"bad-schema"},
        ),
        ({"city": "string. The name of the city"}, set()),  # no JSON schema at all
        ({}, set()),
    ],
)
def test_schemas_that_are_none_are_named_and_nothing_is_fetched(schema, expected):
    tool = {"name": "get_weather", "description": "", "parameters": schema}
    assert codes(talk(USER, CALL, ANSWER, tools=[tool])) == expected


def test_a_pattern_that_could_run_for_ever_ends():
    slow = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^(a|aa)+$"}}}
    tool = {"name": "get_weather", "description": "", "parameters": slow}
    call = {**CALL, "parameters": {"city": "a" * 60 + "b"}}
    assert codes(talk(USER, call, ANSWER, tools=[tool])) == {"arguments"}


def test_an_argument_that_the_schema_does_not_name_is_told():
    row = talk(USER, {**CALL, "parameters": {"city": "x", "country": "y"}}, ANSWER, **OFFERED)
    (problem,) = check(read_row(row))
    assert "'country' was unexpected" in problem.said


def test_broken_arguments_name_the_argument():
    row = talk(USER, {**CALL, "parameters": {"city": ["x"]}}, ANSWER, **OFFERED)
    (problem,) = check(read_row(row))
    assert problem.said == "get_weather: city: ['x'] is not of type 'string'"


def test_a_sound_file_has_exit_code_0(tmp_path, measured, capsys):
    file = written(tmp_path, [ROWS["chatglm3"][0], talk(USER, ANSWER)])
    assert main([str(file)]) == 0
    assert capsys.readouterr().out == "2 rows (chatglm3 2)\nnothing wrong was found\n"


def test_warnings_have_exit_code_1_and_errors_2(tmp_path, capsys):
    warned = written(tmp_path, [ROWS["chatglm3"][0], talk(USER)])
    assert main([str(warned)]) == 1
    wrong = written(tmp_path, [ROWS["chatglm3"][0], talk(USER, CALL, ANSWER)])
    assert main([str(wrong)]) == 2
    assert main([str(tmp_path / "missing.jsonl")]) == 2
    assert "no data file at" in capsys.readouterr().err


def test_the_report_is_json_on_demand(tmp_path, capsys):
    file = written(tmp_path, [talk(USER, CALL, ANSWER), '{"conversations": ['])
    assert main([str(file), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["formats"], report["exit_code"]) == (2, {"chatglm3": 1}, 2)
    found = {problem["code"]: problem for problem in report["problems"]}
    assert found["no-tools"]["places"] == [
        {"place": "data.jsonl, line 1", "said": "it calls tools and declares none"}
    ]
    assert found["bad-json"]["places"][0]["place"] == "data.jsonl, line 2"
    assert {problem["weight"] for problem in found.values()} <= {"error", "warning", "information"}


def test_bad_input_is_named_by_its_line_and_the_rest_is_looked_at(tmp_path, measured):
    """Row 43 of the bad inputs: each kind of bad row in one file."""
    rows = [
        talk(USER, ANSWER),
        '{"conversations": [}',
        {"conversation": [{"human": "x"}]},
        talk(),
        talk(turn("observation", "o"), USER, ANSWER),
        talk(ANSWER),
        talk(turn("user", "x" * 1_000_000), ANSWER),
        talk(USER, turn("assistant", "a", loss=False)),
        "[1, 2]",
        talk(turn("user", "other"), ANSWER),
    ]
    found = look(tmp_path, measured, rows)
    wanted = {
        "bad-json": [2, 9],
        "bad-row": [3, 4],
        "stray-observation": [5],
        "first-turn": [5, 6],
        "no-tools": [5],
        "too-long": [7],
        "nothing-learnt": [7, 8],
    }
    for code, lines in wanted.items():
        assert places(found, code) == [f"data.jsonl, line {line}" for line in lines], code
    assert (found.rows, found.exit_code) == (10, 2)
    assert set(found.counts) <= set(CHECKS)


def test_the_last_line_of_a_long_file_is_named(tmp_path, measured, monkeypatch):
    """The way a file of five million lines goes: a kept index, in many chunks, slices, blocks."""
    monkeypatch.setattr(row_index, "KEPT_FROM", 1)
    monkeypatch.setattr(row_index, "CHUNK", 4096)
    monkeypatch.setattr(repeats, "_BLOCK", 64)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [{"prompt": f"{number}?", "response": "a"} for number in range(3_000)]
    found = look(tmp_path, measured, [*rows, '{"prompt": "x"', rows[5]])
    assert places(found, "bad-json") == ["data.jsonl, line 3001"]
    assert found.places["duplicate"] == [
        ("data.jsonl, line 3002", "the same as data.jsonl, line 6")
    ]
    assert list((tmp_path / "cache" / "glm-workbench" / "rows").iterdir())


def test_many_findings_are_counted_and_the_first_are_kept(tmp_path, measured):
    found = look(tmp_path, measured, [talk(turn("user", f"{n}")) for n in range(50)])
    assert (found.counts["open-end"], len(found.places["open-end"])) == (50, 20)
    assert "and 45 more" in found.text()


def test_repeats_are_told_whatever_stands_around_them(tmp_path, measured):
    first, other = talk(USER, ANSWER, id=1), talk(turn("user", "v"), ANSWER)
    same = {"messages": [USER, ANSWER], "source": "elsewhere"}
    found = look(tmp_path, measured, [first, other, same, first])
    assert found.counts["duplicate"] == 2
    assert [said for _, said in found.places["duplicate"]] == ["the same as data.jsonl, line 1"] * 2


def test_dev_rows_that_were_trained_on_are_named(tmp_path, measured):
    trained = [talk(USER, ANSWER), talk(turn("user", "v"), ANSWER), "{"]
    dev = [
        talk(turn("user", "new"), ANSWER),
        talk(turn("user", "v"), turn("assistant", "another answer")),
        {"prompt": "u", "response": "a"},
        {"prompt": "u", "response": "a"},
    ]
    found = look(tmp_path, measured, trained, dev)
    assert found.places["leak"] == [
        ("dev.jsonl, line 3", "stands in data.jsonl, line 1"),
        ("dev.jsonl, line 4", "stands in data.jsonl, line 1"),
    ]
    assert places(found, "same-question") == [f"dev.jsonl, line {line}" for line in (2, 3, 4)]


def test_rows_over_the_length_say_what_is_cut(measured):
    dialect = measured.dialect
    conversation = Conversation(
        (
            Message("user", "one two three"),
            Message("assistant", "four five six"),
            Message("user", "seven"),
            Message("assistant", "eight"),
        )
    )
    pieces = list(dialect.render(conversation))
    total = sum(len(piece.ids) for piece in pieces)
    learnt = sum(len(piece.ids) for piece in pieces if piece.learn)
    assert Ruler(dialect, total).measure(conversation).said == ""
    start = sum(len(piece.ids) for piece in pieces[:4]) + 1  # one token of the first answer
    length = Ruler(dialect, start).measure(conversation)
    assert (length.tokens, length.learnt, length.kept) == (total, learnt, 1)
    assert length.said == (
        f"{total} tokens, {total - start} over {start}: cuts a turn of assistant and the 2 turns "
        f"after it; 1 of {learnt} learnt tokens are left"
    )


def test_rows_that_fit_by_their_bytes_need_no_tokenizer(tmp_path, measured, monkeypatch):
    monkeypatch.setattr(Ruler, "measure", lambda *_: pytest.fail("it was measured"))
    short = Ruler(measured.dialect, 2048)
    look(tmp_path, short, [talk(USER, ANSWER), {"prompt": "问题", "response": "答案"}])


@pytest.mark.parametrize("text", ["x", "问", "\n", " ", "😀", "\x00", "\u200b", '"', "\\"])
def test_a_row_never_has_more_tokens_than_its_bytes_allow(tmp_path, measured, text):
    for ascii_only in (True, False):
        row = talk(turn("user", text * 9), turn("assistant", text * 9))
        rows = open_rows(written(tmp_path, [json.dumps(row, ensure_ascii=ascii_only)]))
        size, read = rows.size(0), read_row(rows[0][0])
        tokens = measured.measure(read).tokens
        assert not Ruler(measured.dialect, tokens - 1).fits(read, size)


def test_data_without_tools_for_a_model_that_calls_them_is_a_warning(tmp_path, measured):
    rows = [talk(USER, ANSWER)]
    found = look(tmp_path, measured, rows)
    assert "--mix-tools" in found.places["tools-missing"][0][1]
    second = Ruler(DIALECTS["chatglm2"](Tokenizer(tokenizer_file())), 100)
    assert look(tmp_path, second, rows).exit_code == 0
    found = look(tmp_path, second, [ROWS["chatglm3"][0]])
    assert "ChatGLM2 knows no tools" in found.places["not-for-model"][0][1]


def test_the_model_and_the_length_are_chosen_by_name(tmp_path, capsys):
    file = written(tmp_path, [talk(USER, turn("assistant", "word " * 50))])
    tiny = ROOT / "assets" / "tiny"
    assert main([str(file), "--model", str(tiny), "--max-length", "20"]) == 1
    assert "lengths as tiny counts them" in capsys.readouterr().out
    assert main([str(file), "--model", str(tmp_path)]) == 2
    assert main([str(file), "--max-length", "0"]) == 2
    assert "at least 1 token, not 0" in capsys.readouterr().err


def test_the_command_line_explains_itself():
    for module in ("finetune.doctor", "finetune.convert"):
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "Exit code" in done.stdout


@pytest.mark.parametrize("name", ["tools_en", "tools_zh", "chat"])
def test_the_shipped_samples_have_no_errors(name, capsys):
    assert main([f"assets/data/{name}.jsonl"]) < 2
    assert name in capsys.readouterr().out

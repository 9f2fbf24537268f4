"""Converting data files, and the two official formatters."""

import json
import subprocess
import sys

import pytest

from finetune.convert import main
from finetune.files.rows import open_rows
from finetune.formats import chosen_rejected, read_row
from tests.format_rows import ONE, ROWS, TALK, WITH_TOOLS
from tests.shared_files import ROOT, SHARED

TOOLALPACA = SHARED / "data" / "toolalpaca"


def written(tmp_path, *rows, name="in.jsonl"):
    file = tmp_path / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def conversations(file):
    rows = open_rows(file)
    return [read_row(rows[number][0]) for number in range(len(rows))]


@pytest.mark.parametrize("name", ["out.jsonl", "out.json"])
@pytest.mark.parametrize("to", ["chatglm3", "openai", "sharegpt", "glm4"])
def test_rows_of_mixed_formats_become_one(tmp_path, capsys, name, to):
    rows = [ROWS[source][0] for source in ("chatglm3", "openai", "sharegpt", "glm4", "alpaca")]
    source, out = written(tmp_path, *rows), tmp_path / "new" / name
    assert main([str(source), str(out), "--to", to]) == 0
    assert conversations(out) == [WITH_TOOLS] * 4 + [TALK]
    assert capsys.readouterr().out == "5 of 5 rows written\n"
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_what_is_left_out_is_counted_with_line_and_reason(tmp_path, capsys):
    source = written(tmp_path, ROWS["alpaca"][0], {"x": 1}, ROWS["chatglm3"][0])
    with source.open("a") as file:
        file.write('{"prompt": \n')
    out = tmp_path / "out.jsonl"
    assert main([str(source), str(out), "--to", "firefly"]) == 1
    assert conversations(out) == [TALK]
    said = capsys.readouterr().out
    assert "1 of 4 rows written" in said
    assert "left out: no known format has these keys: x" in said
    assert (
        "firefly: it has no place for tool calls and what they brought (in.jsonl, line 3)" in said
    )
    assert "not JSON" in said and "in.jsonl, line 4" in said


def test_what_a_format_has_no_place_for_is_counted(tmp_path, capsys):
    row = {"system": "s", "prompt": "1+1?", "response": "2"}
    source, out = written(tmp_path, *[row] * 7, ROWS["prompt-response"][0]), tmp_path / "out.json"
    assert main([str(source), str(out), "--to", "context-target"]) == 0
    assert conversations(out) == [ONE] * 8
    said = capsys.readouterr().out
    assert "7 x no place for the system message in context-target (in.jsonl, line 1; " in said
    assert said.count("line") == 5  # the first places are enough
    assert main([str(source), str(out), "--to", "context-target", "--strict"]) == 1
    assert conversations(out) == [ONE]


def test_the_format_of_a_file_can_be_said(tmp_path):
    source, out = written(tmp_path, ROWS["alpaca-sft"][0]), tmp_path / "out.jsonl"
    assert main([str(source), str(out), "--from", "alpaca-sft", "--to", "chatglm3"]) == 0
    assert conversations(out) == [ROWS["alpaca-sft"][1]]


def test_half_a_surrogate_pair_is_written_so_that_it_can_be_read(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "\\ud800", "response": "问"}\n')
    assert main([str(source), str(tmp_path / "out.jsonl"), "--to", "chatglm3"]) == 0
    assert conversations(tmp_path / "out.jsonl")[0].messages[0].content == "\ud800"


@pytest.mark.parametrize(
    ("source", "out", "sentence"),
    [
        ("missing.jsonl", "out.jsonl", "no data file at"),
        ("in.jsonl", "out.xml", "has to end in .jsonl or .json"),
    ],
)
def test_nothing_is_written_where_nothing_can_be(tmp_path, capsys, source, out, sentence):
    written(tmp_path, ROWS["alpaca"][0])
    assert main([str(tmp_path / source), str(tmp_path / out), "--to", "openai"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_a_conversion_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    source, out = written(tmp_path, *[ROWS["alpaca"][0]] * 3), tmp_path / "out.jsonl"
    out.write_text("old")
    monkeypatch.setattr("finetune.convert.written", lambda row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([str(source), str(out), "--to", "openai"])
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def test_a_pair_of_answers_stays_one_or_loses_the_worse(tmp_path, capsys):
    source, out = written(tmp_path, PAIR), tmp_path / "out.jsonl"
    assert main([str(source), str(out), "--to", "chosen-rejected"]) == 0
    assert chosen_rejected.both(json.loads(out.read_text())) == chosen_rejected.both(PAIR)
    assert "no place" not in capsys.readouterr().out
    assert main([str(source), str(out), "--to", "openai"]) == 0
    assert "1 x no place for the rejected answer in openai" in capsys.readouterr().out


def test_a_row_that_cannot_be_written_is_named_and_the_others_are(tmp_path, capsys):
    plain = {"prompt": "q", "response": "a"}
    typed = {"name": "f", "description": "", "parameters": "x: a number"}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    source = written(tmp_path, plain, {"tools": [typed], "conversations": turns}, plain)
    out = tmp_path / "out.jsonl"
    assert main([str(source), str(out), "--to", "openai"]) == 1
    assert "1 x left out: openai: the parameters" in capsys.readouterr().out
    assert len(conversations(out)) == 2


def test_a_file_stays_where_no_row_came_or_none_can_be_written(tmp_path, capsys):
    source, out = written(tmp_path, {"a;b": "1;2"}), tmp_path / "out.jsonl"
    out.write_text("old")
    assert main([str(source), str(out), "--to", "openai"]) == 2
    assert out.read_text() == "old"
    assert main([str(source), str(out / "deeper.jsonl"), "--to", "openai"]) == 2
    assert "deeper.jsonl cannot be written" in capsys.readouterr().err


def formatter(tmp_path, name, path):
    command = [sys.executable, ROOT / "finetune" / name, "--path", path]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


def api(*parameters):
    steps = [
        [["f", given, f"I try.\nAction: f\nAction Input: {given}"], "ok"] for given in parameters
    ]
    asked = {"input": "go", "output": "done", "Final Thought": "I know."}
    return {"NLDocumentation": "f: x", "Instances": [{**asked, "intermediate_steps": steps}]}


def test_toolalpaca_is_formatted_as_the_official_script_does(tmp_path):
    bad = api('{"a": 1, 2}')
    file = tmp_path / "train_data.json"
    file.write_text(json.dumps([api('{"a": 1}'), bad, {"Instances": []}]))
    done = formatter(tmp_path, "format_tool_alpaca.py", file)
    assert done.returncode == 0, done.stderr
    assert "err_count: 2" in done.stdout and "train_examples: 1" in done.stdout
    assert "instance 1" in done.stdout and "is not JSON" in done.stdout
    made = (tmp_path / "formatted_data" / "tool_alpaca.jsonl").read_text(encoding="utf-8")
    assert json.loads(made) == {
        "tools": ["f: x"],
        "conversations": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "I try."},
            {"role": "tool", "name": "f", "parameters": {"a": 1}, "observation": "ok"},
            {"role": "assistant", "content": "I know.\ndone"},
        ],
    }


def test_the_rebuilt_toolalpaca_is_formatted_to_the_byte(tmp_path):
    if not TOOLALPACA.exists():
        return
    done = formatter(tmp_path, "format_tool_alpaca.py", TOOLALPACA / "rebuilt_train_schema.json")
    assert "err_count: 1" in done.stdout and "train_examples: 195" in done.stdout
    made = (tmp_path / "formatted_data" / "tool_alpaca.jsonl").read_bytes()
    assert made == (TOOLALPACA / "rebuilt_formatted_tool_alpaca.jsonl").read_bytes()


def test_advertisegen_is_formatted_as_the_official_script_does(tmp_path):
    file = tmp_path / "train.json"
    file.write_text(
        '{"content": "类型#裤", "summary": "好裤子"}\n{"content": "x"}\n', encoding="utf-8"
    )
    done = formatter(tmp_path, "format_advertise_gen.py", file)
    assert done.returncode == 0, done.stderr
    assert 'err_count: 1\n  1 x "summary" is missing (train.json, line 2)' in done.stdout
    made = (tmp_path / "formatted_data" / "advertise_gen.jsonl").read_text(encoding="utf-8")
    assert made == '{"prompt": "类型#裤", "response": "好裤子"}\n'


@pytest.mark.parametrize("name", ["format_tool_alpaca.py", "format_advertise_gen.py"])
def test_a_formatter_without_its_file_says_so(tmp_path, name):
    done = formatter(tmp_path, name, "missing.json")
    assert (done.returncode, "no data file at missing.json" in done.stderr) == (2, True)

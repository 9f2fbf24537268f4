"""Rows of files by their number: every layout, what is broken in them, mixing, flat memory."""

import json
import os
import pickle
import subprocess
import sys
import time

import pytest

from finetune.files import row_index
from finetune.files.rows import RowFile, open_rows
from finetune.formats import BadRow, read_row
from glm.errors import BadRequest
from tests.shared_files import ROOT

ROWS = [{"prompt": f"问 {number}", "response": "a\nb"} for number in range(3)]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]


def everything(rows):
    return [rows[number] for number in range(len(rows))]


def written(tmp_path, text, name="rows.jsonl"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\n".join(LINES) + "\n", [1, 2, 3]),
        ("\n".join(LINES), [1, 2, 3]),  # no final newline
        ("\r\n".join(LINES) + "\r\n", [1, 2, 3]),
        ("\ufeff" + "\n".join(LINES), [1, 2, 3]),
        ("\n\n" + "\n \n".join(LINES) + "\n\n\n", [3, 5, 7]),
        (json.dumps(ROWS), [1, 1, 1]),
        (json.dumps(ROWS, ensure_ascii=False, indent=2), [2, 6, 10]),
        ("\ufeff[\n" + ",\n".join(LINES) + "\n]\n", [2, 3, 4]),
        ("\n".join(json.dumps(row, indent=4) for row in ROWS), [1, 5, 9]),  # "jsonl"
        (",\n".join(json.dumps(row, indent=1) for row in ROWS) + ",\n", [1, 5, 9]),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.txt"])
def test_json_of_every_layout_is_read_with_its_lines(tmp_path, text, lines, name):
    rows = open_rows(written(tmp_path, text, name))
    assert everything(rows) == list(zip(ROWS, lines, strict=True))
    assert rows.place(2) == f"{name}, line {lines[2]}"


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_lines_are_found_wherever_a_chunk_ends(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(row_index, "CHUNK", chunk)
    rows = RowFile(written(tmp_path, "\ufeff\n" + "\n\n".join(LINES)))
    assert [line for _, line in everything(rows)] == [2, 4, 6]


@pytest.mark.parametrize(
    ("text", "bad", "sentence"),
    [
        (f"{LINES[0]}\n{LINES[1][:-1]}\n{LINES[2]}\n", 1, "line 2: not JSON: "),
        (f"{LINES[0]}\n{LINES[1]}{LINES[2]}\n", 1, "line 2: two values on one line"),
        (f"{LINES[0]}\n[1]\n", 1, "line 2: a row is an object, not a list"),
        (f"{LINES[0]}\nhello there, you\n", 1, "line 2: not JSON: "),
        (LINES[0].encode() + b"\n{\"prompt\": \"\xff\"}\n", 1, "line 2: not UTF-8 at byte 12"),
        (f"{LINES[0]}\n" + "[" * 100_000 + "\n", 1, "line 2: not JSON"),
        (f"{LINES[0][:-1]}\n{LINES[1]}\n", 0, "line 1: not JSON: "),
        (f"[\n{LINES[0]},\n{LINES[1][:-1]},\n{LINES[2]}\n]", 1, "line 3: not JSON: "),
        (f"[\n{LINES[0]},\n{LINES[1]}", 2, "line 3: not JSON: the file ends inside a list"),
        ("{\n \"a\": 1\n}\n{\n \"b\" 2\n}\n{\n \"c\": 3\n}", 1,
         "line 4: not JSON: .* at line 5, column"),
    ],
)  # fmt: skip
def test_a_broken_row_is_named_by_its_line_and_the_others_are_read(tmp_path, text, bad, sentence):
    rows = RowFile(written(tmp_path, text))
    with pytest.raises(BadRow, match=sentence):
        rows[bad]
    assert all(rows[number] for number in range(len(rows)) if number != bad)


def test_a_csv_file_may_break_lines_inside_its_cells(tmp_path):
    text = '\ufeffprompt,response\r\n"a, ""b""\r\nc",d\r\n\r\n问,"x\ny"\r\nonly\r\n'
    rows = open_rows(written(tmp_path, text, "rows.csv"))
    assert everything(rows) == [
        ({"prompt": 'a, "b"\r\nc', "response": "d"}, 2),
        ({"prompt": "问", "response": "x\ny"}, 5),
        ({"prompt": "only"}, 7),
    ]
    tabs = open_rows(written(tmp_path, "instruction\toutput\tinput\nx\ty\t\n", "rows.tsv"))
    assert read_row(tabs[0][0]).messages[0].content == "x"


def test_only_line_feeds_end_a_line_of_a_table(tmp_path):
    text = "prompt,response\na,b\u2028c\x85d\x0be\x0cf\n" + 'g,"h\ri"\nj,k\rl\nm,n\n'
    rows = open_rows(written(tmp_path, text, "rows.csv"))
    assert rows[0][0] == {"prompt": "a", "response": "b\u2028c\x85d\x0be\x0cf"}
    assert rows[1][0] == {"prompt": "g", "response": "h\ri"}
    assert rows[3][0] == {"prompt": "m", "response": "n"}
    with pytest.raises(BadRow, match="line 4: a carriage return stands alone in a cell"):
        rows[2]
    with pytest.raises(BadRequest, match="save the file with line feeds"):
        open_rows(written(tmp_path, "prompt,response\ra,b\r", "old.csv"))


def test_the_first_line_of_a_pretty_value_may_hold_more_than_its_brace(tmp_path):
    one = '{"conversations": [\n {"role": "user", "content": "q"},\n'
    one += ' {"role": "assistant", "content": "a"}\n]}\n'
    short = '{"conversations": [\n{"role": "user", "content": "q"}\n]}\n'
    for text in (one * 2, short * 2):
        rows = open_rows(written(tmp_path, text))
        assert len(rows) == 2 and rows[1][0]["conversations"][0]["content"] == "q"
    broken = '{"prompt": "a", "respon\n{"prompt": "b", "response": "c"}\n'
    rows = open_rows(written(tmp_path, broken))
    assert len(rows) == 2 and rows[1] == ({"prompt": "b", "response": "c"}, 2)


def test_a_bad_item_of_a_list_on_one_line_takes_no_other_with_it(tmp_path):
    rows = open_rows(written(tmp_path, '[{"n": 1}, {"n": two}, {"n": 3}, {"n": 4}]', "rows.json"))
    assert [rows[number][0] for number in (0, 2, 3)] == [{"n": 1}, {"n": 3}, {"n": 4}]
    with pytest.raises(BadRow, match="not JSON"):
        rows[1]


def test_a_csv_row_with_too_many_cells_is_named(tmp_path):
    rows = RowFile(written(tmp_path, "a,b\n1,2,3\n4,5\n", "rows.csv"))
    with pytest.raises(BadRow, match="line 2: .*3 cells, and the header has 2"):
        rows[0]
    assert rows[1] == ({"a": "4", "b": "5"}, 3)


def test_conversations_in_cells_are_read(tmp_path):
    turns = json.dumps([{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}])
    quoted = turns.replace('"', '""')
    rows = open_rows(written(tmp_path, f'conversations,tools\n"{quoted}",\n', "rows.csv"))
    assert [m.content for m in read_row(rows[0][0]).messages] == ["u", "a"]


def test_a_row_of_a_million_characters_is_read(tmp_path):
    for name, text in (
        ("long.jsonl", json.dumps({"prompt": "x" * 10**6, "response": "y"})),
        ("long.csv", "prompt,response\n" + "x" * 10**6 + ",y\n"),
    ):
        assert len(open_rows(written(tmp_path, text, name))[0][0]["prompt"]) == 10**6


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.jsonl", b"", "no rows in"),
        ("a.jsonl", b"\n\n", "no rows in"),
        ("a.csv", b"prompt,response\n", "no rows in"),
        ("a.json", b"[]", "no rows in"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("a.jsonl", b"\x00\x01\x02", "is not a text file"),
        ("a.jsonl.gz", b"\x1f\x8b", "is packed"),
        ("a.xlsx", b"PK", "is packed"),
        ("a.json", b'[\n{"a": "\xc4\xe3"}]', "line 2: not UTF-8"),
        ("a.csv", b"\xc4\xe3,b\n1,2\n", "line 1: not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path, name, data, sentence):
    with pytest.raises(BadRequest, match=sentence) as caught:
        open_rows(written(tmp_path, data, name))
    assert name in str(caught.value)


def test_what_is_not_there_is_refused_by_its_name(tmp_path):
    with pytest.raises(BadRequest, match="no data file at .*nothing.jsonl"):
        open_rows(tmp_path / "nothing.jsonl")
    with pytest.raises(BadRequest, match="no data files in"):
        open_rows(tmp_path)


def test_a_folder_is_its_files_in_order(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    written(tmp_path, LINES[1], "deep/b.json")
    written(tmp_path, LINES[0], "a.jsonl")
    written(tmp_path, LINES[2], ".hidden/c.jsonl")
    written(tmp_path, "{}", "dataset_info.json")
    written(tmp_path, "read me", "README.md")
    rows = open_rows(tmp_path)
    assert [row for row, _ in everything(rows)] == ROWS[:2]
    assert rows.place(1) == "b.json, line 1"


@pytest.mark.parametrize(
    ("weight", "numbers"),
    [
        ("", [0, 1, 2, 3]), (":1", [0, 1, 2, 3]), (":0.5", [0, 2]), (":.25", [0]),
        (":2", [0, 1, 2, 3, 0, 1, 2, 3]), (":1.5", [0, 1, 2, 3, 0, 1]),
    ],
)  # fmt: skip
def test_files_are_mixed_by_their_weights(tmp_path, weight, numbers):
    many = written(tmp_path, "\n".join(f'{{"n": {number}}}' for number in range(4)), "many.jsonl")
    other = written(tmp_path, '{"n": 9}', "other.jsonl")
    rows = open_rows([f"{many}{weight}", other])
    assert [row["n"] for row, _ in everything(rows)] == [*numbers, 9]
    assert rows.place(len(numbers)) == "other.jsonl, line 1"
    assert rows.size(len(numbers)) == 8


def test_a_weight_of_nothing_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="above 0"):
        open_rows(f"{written(tmp_path, LINES[0])}:0")


@pytest.mark.parametrize("layout", ["list", "lines"])
def test_an_api_of_toolalpaca_is_a_row_for_each_instance(tmp_path, layout):
    def api(*asked):
        instances = [{"input": text, "output": "o", "intermediate_steps": []} for text in asked]
        return {"NLDocumentation": "f: x", "Instances": instances}

    apis = [api("a", "b"), api(), api("c")]
    text = json.dumps([api(), *apis])  # the first may hold none, too
    assert len(open_rows(written(tmp_path, text, "none_first.json"))) == 5
    text = json.dumps(apis, indent=1) if layout == "list" else "\n".join(map(json.dumps, apis))
    rows = open_rows(written(tmp_path, text, "train_data.json"))
    read = [read_row(rows[number][0]).messages[0].content for number in (0, 1, 3)]
    assert (len(rows), read) == (4, ["a", "b", "c"])
    assert rows.place(1).endswith("instance 2")
    with pytest.raises(BadRow, match="0 conversations"):
        read_row(rows[2][0])


def test_an_evaluation_file_of_toolalpaca_is_a_row_for_each_question(tmp_path):
    def wanted(given, more=()):
        return [{"Action": "f", "Action_Input": given}, *more]

    answers = [wanted('{"a": 1}', wanted("{}")), wanted('{"day": ${a day}}'), []]
    api = {"NLDocumentation": "f: x", "Instructions": ["a", "b", "c"], "Golden_Answers": answers}
    rows = open_rows(written(tmp_path, json.dumps([api, api]), "eval_simulated.json"))
    assert len(rows) == 6 and rows.place(4).endswith("instance 2")
    question, answer = read_row(rows[3][0]).messages
    (call,) = answer.calls  # of the second nobody recorded what it follows from
    assert (question.content, call.name, call.arguments) == ("a", "f", {"a": 1})
    for number, why in ((1, "is not JSON"), (2, 'needs an "Action"')):
        with pytest.raises(BadRow, match=why):
            read_row(rows[number][0])


def test_rows_open_themselves_again_in_another_process(tmp_path):
    rows = pickle.loads(pickle.dumps(RowFile(written(tmp_path, "\n".join(LINES)))))
    assert everything(rows)[2] == (ROWS[2], 3)


def test_a_number_out_of_range_is_an_index_error(tmp_path):
    rows = RowFile(written(tmp_path, LINES[0]))
    for number in (1, -1):
        with pytest.raises(IndexError):
            rows[number]


def test_parquet_without_pyarrow_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadRequest, match="needs pyarrow: pip install pyarrow"):
        open_rows(written(tmp_path, b"PAR1", "rows.parquet"))


def test_parquet_rows_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "rows.parquet"
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    table = pyarrow.Table.from_pylist(
        [{"conversations": turns, "n": number} for number in range(5)]
    )
    parquet.write_table(table, file, row_group_size=2)
    rows = open_rows(file)
    assert [(row["n"], number) for row, number in everything(rows)] == [
        (i, i + 1) for i in range(5)
    ]
    assert len(read_row(rows[4][0]).messages) == 2
    assert rows.place(4) == "rows.parquet, row 5"
    with pytest.raises(BadRequest, match="is not a parquet file"):
        open_rows(written(tmp_path, b"PAR1", "bad.parquet"))


def test_keys_that_only_other_rows_of_a_parquet_file_have_are_absent(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "rows.parquet"
    given = [
        {"calls": [{"f": "x", "given": {"city": "X", "at": [1, None]}}, None]},
        {"calls": [{"f": "y", "given": {"zone": "Z"}}]},
        {"calls": [{"given": {"city": "X", "inner": {"deep": 1}}}, {"given": {"inner": {}}}]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(given), file)
    assert [row for row, _ in everything(open_rows(file))] == given


# ---- the index of a large file -------------------------------------------------------------


@pytest.fixture
def kept_from_one_byte(monkeypatch):
    monkeypatch.setattr(row_index, "KEPT_FROM", 1)


def test_an_index_is_kept_until_the_file_changes(tmp_path, kept_from_one_byte, monkeypatch):
    file, cache = written(tmp_path, "\n".join(LINES)), tmp_path / "cache"
    assert len(RowFile(file, cache)) == 3
    with monkeypatch.context() as patch:
        patch.setattr(row_index, "scan", lambda *_: pytest.fail("it was looked over again"))
        assert everything(RowFile(file, cache))[2] == (ROWS[2], 3)
    file.write_text("\n".join([*LINES, LINES[0]]), encoding="utf-8")
    assert len(RowFile(file, cache)) == 4
    assert len(list(cache.iterdir())) == 1  # the old one is gone


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 48])
def test_a_damaged_index_is_made_anew(tmp_path, kept_from_one_byte, damage):
    file, cache = written(tmp_path, "\n".join(LINES)), tmp_path / "cache"
    RowFile(file, cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert everything(RowFile(file, cache))[1] == (ROWS[1], 2)


def test_without_a_place_for_the_index_it_stays_in_memory(tmp_path, kept_from_one_byte):
    file = written(tmp_path, "\n".join(LINES))
    assert len(RowFile(file, file / "no folder")) == 3


def test_the_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert row_index.cache_folder() == tmp_path / "glm-workbench" / "rows"


GROWTH = """
import sys
from pathlib import Path
from finetune.files.rows import RowFile

def anonymous():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Anonymous"):
            return int(line.split()[1]) // 1024

RowFile(Path(sys.argv[1]), Path(sys.argv[3]))[5]
before = anonymous()
rows = RowFile(Path(sys.argv[2]), Path(sys.argv[3]))
for number in range(0, len(rows), 997):
    rows[number]
print(len(rows), anonymous() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="counts on Linux only")
def test_memory_does_not_grow_from_ten_thousand_to_a_million_rows(tmp_path):
    line = (LINES[0] + "\n").encode()
    small = written(tmp_path, line * 10_000, "small.jsonl")
    large = written(tmp_path, line * 1_000_000, "large.jsonl")
    command = [sys.executable, "-c", GROWTH, small, large, tmp_path / "cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == 1_000_000
    assert grown < 20  # MB


def test_a_million_rows_are_indexed_in_well_under_a_second(tmp_path):
    file = written(tmp_path, (LINES[0] + "\n").encode() * 1_000_000)
    start = time.process_time()
    assert len(RowFile(file, tmp_path / "cache")) == 1_000_000
    assert time.process_time() - start < 1

"""The tools on uploads: search_files, read_file, query_table; and attacks on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.pretrain import simulate
from glm.cancel import Cancel
from glm.errors import ToolError
from tests.uploaded import GOODS, SALES, store
from tools import separate, uploads
from tools.builtin.query_table import query_table
from tools.builtin.read_file import read_file
from tools.builtin.search_files import search_files

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def upload(tmp_path):
    """Uploads by keyword: a__txt="..." is the file a.txt."""

    def write(**named):
        return store(tmp_path, {name.replace("__", "."): data for name, data in named.items()})

    return write


@pytest.fixture
def sales(tmp_path):
    return store(tmp_path, {"sales.csv": SALES, "销售.csv": GOODS, "notes.txt": "hello"})


# ---- search_files, read_file -------------------------------------------------------------------


def test_a_search_finds_lines_whatever_their_case_and_width(upload):
    files = upload(a__txt="one\n\nThe BUDGET is ＦＵＬＬ\n", 报告__md="预算已经批准\n结束")
    assert json.loads(search_files("budget", files).text) == [
        {"file": "a.txt", "line": 3, "text": "The BUDGET is ＦＵＬＬ"}
    ]
    assert json.loads(search_files("full", files).text)[0]["line"] == 3
    assert json.loads(search_files("预算", files).text)[0]["file"] == "报告.md"
    assert json.loads(search_files("full budget", files).text)[0]["line"] == 3
    assert search_files("zebra", files).text == simulate.NOTHING


def test_many_hits_and_long_lines_are_cut_with_a_mark(upload):
    files = upload(log__txt=("x" * 900 + " needle " + "y" * 900 + "\n") * 500)
    result = search_files("needle", files)
    assert result.text.endswith(simulate.TRUNCATED)
    hits = json.loads(result.text.removesuffix(simulate.TRUNCATED))
    assert len(hits) == 5
    assert all("needle" in hit["text"] and len(hit["text"]) < 200 for hit in hits)
    assert len(result.table.rows) == 200


def test_a_search_goes_on_past_a_file_it_cannot_read(upload):
    files = upload(a__bin=bytes(range(256)) * 40, b__txt="the needle")
    assert json.loads(search_files("needle", files).text)[0]["file"] == "b.txt"
    with pytest.raises(ToolError, match=r"a\.bin is not a text, csv or pdf file"):
        search_files("needle", {"a.bin": files["a.bin"]})


def test_reading_a_file_by_its_name(upload):
    files = upload(Report__txt="line one\nline two\n", 笔记__md="你好".encode("gb18030"))
    assert read_file("Report.txt", files) == "line one\nline two"
    assert read_file("report.TXT", files) == "line one\nline two"
    assert read_file("report", files) == "line one\nline two"
    assert read_file("笔记.md", files) == "你好"


def test_a_long_file_is_cut_with_the_mark_the_model_knows(upload):
    text = read_file("a.txt", upload(a__txt="word " * 10_000))
    assert text.endswith(simulate.TRUNCATED)
    assert len(text) < 3100


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "C:\\x", "notes.txt\0", "..", "", " ", "upload0", "%2e%2e/x"],
)
def test_a_name_is_never_a_path(name, upload, tmp_path):
    (tmp_path.parent / "secret").write_text("key")
    files = upload(notes__txt="hello", b__txt="x")
    with pytest.raises(ToolError, match=r"no file named|is missing"):
        read_file(name, files)


def test_a_link_among_the_uploads_is_not_followed(tmp_path):
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    with pytest.raises(ToolError, match="not a file"):
        read_file("link.txt", {"link.txt": tmp_path / "link.txt"})


def test_an_error_names_the_files_there_are(upload):
    with pytest.raises(ToolError, match=r"no file named 'x\.txt'; uploaded: a\.txt, b\.csv"):
        read_file("x.txt", upload(a__txt="a", b__csv="a,b\n1,2"))
    for use in (read_file, search_files):
        with pytest.raises(ToolError, match="no files have been uploaded"):
            use("x", {})


def test_a_file_of_ten_megabytes_is_read_and_a_larger_one_is_refused(upload):
    files = upload(big__txt=b"a needle\n" + b"abcdefghi\n" * 999_999, huge__txt=b"x" * 10_000_001)
    assert json.loads(search_files("NEEDLE", {"big.txt": files["big.txt"]}).text)[0]["line"] == 1
    with pytest.raises(ToolError, match=r"huge\.txt has 10\.0 MB; at most 10 MB"):
        read_file("huge.txt", files)


def test_cancelling_ends_the_reading_of_a_pdf(upload):
    stop = Cancel()
    stop.set()
    with pytest.raises(ToolError, match="was stopped|takes more than"):
        read_file("a.pdf", upload(a__pdf=b"%PDF-1.4\n"), stop)
    assert uploads.PDF_SECONDS <= 30


# ---- query_table -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "columns", "rows"),
    [
        ("SELECT COUNT(*) FROM sales", ["count"], [[3]]),
        ("SELECT AVG(unit price) FROM sales.csv", ["avg"], [[601.75]]),
        ('select "unit price" from SALES where id = 2;', ["unit price"], [[1200.0]]),
        ("SELECT order FROM sales ORDER BY order DESC LIMIT 1", ["order"], [["y"]]),
        ("SELECT name FROM sales WHERE code = '007'", ["name"], [["Anna"]]),
        ("SELECT 产品 FROM 销售 WHERE 数量 > 3", ["产品"], [["梨"]]),
        ("SELECT SUM(数量) FROM 销售.csv", ["sum"], [[8]]),
        ("SELECT name FROM sales WHERE city = '北京'", ["name"], [["李雷"]]),
        ("SELECT id FROM sales WHERE id > 99", ["id"], []),
    ],
)
def test_a_query(sales, sql, columns, rows):
    result = query_table(sql, sales)
    assert json.loads(result.text) == {"columns": columns, "rows": rows}
    assert [list(row) for row in result.table.rows] == rows


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("DROP TABLE sales", "only SELECT statements are allowed"),
        ("SELECT 1 FROM sales; DROP TABLE sales", "only one SELECT"),
        ("WITH a AS (SELECT 1) DELETE FROM sales", "only SELECT"),
        ("ATTACH '{canary}' AS sales", "only SELECT"),
        ("VACUUM sales INTO '{canary}'", "only SELECT"),
        ("PRAGMA sales", "only SELECT"),
        ("SELECT load_extension('sales')", "load_extension cannot be used"),
        ("SELECT * FROM pragma_database_list, sales", "only SELECT"),
        ("SELECT writefile('{canary}', name) FROM sales", "no such function"),
        ("SELECT length(zeroblob(900000000)) FROM sales", "too much memory"),
        ("SELECT printf('%.900000000c', 'x') FROM sales", "printf cannot be used"),
        ("SELECT nope FROM sales", r"no column named 'nope'; columns: sales \(id, name"),
        ("SELECT * FROM nope", "no table named 'nope'; tables: sales, 销售"),
        ("SELECT * FROM sales, nope", "no table named 'nope'"),
        ("SELECT FROM sales WHERE", "the query is wrong"),
        ("hello sales", "only SELECT"),
        ("SELECT '" + "x" * 20_000 + "' FROM sales", "longer than"),
    ],
)
def test_a_query_that_must_not_run(sales, tmp_path, sql, why):
    canary = tmp_path / "canary"
    with pytest.raises(ToolError, match=why):
        query_table(sql.replace("{canary}", str(canary)), sales)
    assert not canary.exists()


def test_a_query_without_end_is_ended(sales):
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
    with pytest.raises(ToolError, match="took longer than"):
        query_table(endless + "SELECT MAX(n) FROM r, sales", sales)


def test_a_query_that_piles_up_memory_is_ended(sales):
    piling = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
    with pytest.raises(ToolError, match="took longer|too much memory"):
        query_table(piling + "SELECT hex(zeroblob(400000)) x FROM r, sales ORDER BY n, x", sales)


def test_cancelling_ends_a_query(sales):
    stop = Cancel()
    stop.set()
    with pytest.raises(ToolError, match="took too long"):
        query_table("SELECT COUNT(*) FROM sales", sales, stop)


def test_many_rows_are_cut_with_the_mark(upload):
    files = upload(t__csv="n,text\n" + "".join(f"{n},{'y' * 50}\n" for n in range(5000)))
    result = query_table("SELECT * FROM t", files)
    assert result.text.endswith(simulate.TRUNCATED)
    assert len(json.loads(result.text.removesuffix(simulate.TRUNCATED))["rows"]) == 20
    assert len(result.table.rows) == 200
    assert json.loads(query_table("SELECT SUM(n) FROM t", files).text)["rows"] == [[12497500]]


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\n1,2,3\n4\n",
        b"a;b\n1;2\n4;\n",
        b"\xef\xbb\xbfa,a,\n1,2,3\n4\n",
        b"a\tb\r\n1\t2\r\n4\t\r\n",
    ],
)
def test_untidy_tables_are_read(data, upload):
    assert json.loads(query_table("SELECT a FROM t", upload(t__csv=data)).text)["rows"] == [
        [1],
        [4],
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x00\x01\x02" * 99, "is not a text"),
        (b"", "is empty"),
        (",".join(f"c{n}" for n in range(600)).encode(), "at most 500"),
        (b"a\n" + b"x" * 2_000_000, "field larger"),
        (b"x" * 10_000_001, "at most 10 MB"),
    ],
)
def test_what_is_no_table_is_refused(data, why, upload):
    with pytest.raises(ToolError, match=why):
        query_table("SELECT * FROM t", upload(t__csv=data))


def test_a_table_of_ten_megabytes_is_counted(upload):
    files = upload(big__csv=b"id,word\n" + (b"12345," + b"a" * 90 + b"\n") * 100_000)
    assert json.loads(query_table("SELECT COUNT(*) FROM big", files).text)["rows"] == [[100_000]]


def test_without_tables_the_error_says_so(upload):
    with pytest.raises(ToolError, match="no csv files have been uploaded"):
        query_table("SELECT 1", upload(a__txt="x"))


def test_a_query_sees_neither_the_environment_nor_the_secrets_of_the_program(sales, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sk-canary")
    script = ROOT / "tests" / "print_environment.py"
    seen = separate.answer(script, seconds=30)
    assert "sk-canary" not in seen

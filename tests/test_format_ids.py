"""What is read from a file renders to the ids of the official code, to the byte of a call."""

import ast
import json

import pytest

from finetune.checks import check
from finetune.files.rows import open_rows
from finetune.formats import FORMATS, losses, read_row
from glm.dialects.chatglm3 import ChatGLM3, call_text, tools_block
from glm.tokenizer import Tokenizer
from tests.format_rows import FUNCTION, TOOL, TOOL_ROW, turn
from tests.shared_files import CHATGLM3_TOKENIZER, ROOT, SHARED, golden_rows, tokenizer_file


@pytest.fixture(scope="module")
def dialect():
    return ChatGLM3(Tokenizer(tokenizer_file()))


def ids_and_labels(dialect, conversation):
    pieces = list(dialect.render(conversation))
    ids = [i for piece in pieces for i in piece.ids]
    return ids, [i if piece.learn else -100 for piece in pieces for i in piece.ids]


def test_rows_render_to_the_ids_and_labels_of_the_official_preprocessing():
    for row in golden_rows("chatglm3_official_multiturn.jsonl"):
        dialect = ChatGLM3(Tokenizer(CHATGLM3_TOKENIZER))
        assert ids_and_labels(dialect, read_row(row["row"])) == (row["tokens"], row["labels"])
        written = json.loads(json.dumps(FORMATS["chatglm3"].write(read_row(row["row"]))))
        assert read_row(written) == read_row(row["row"])


def test_rows_render_to_the_ids_of_firefly_save_for_its_ends():
    """Firefly puts an end token after every answer; the layout of that name adds them."""
    for row in golden_rows("chatglm3_firefly.jsonl"):
        dialect = ChatGLM3(Tokenizer(CHATGLM3_TOKENIZER))
        end = dialect.tokenizer.eos
        ids, _ = ids_and_labels(dialect, read_row(row["row"]))
        assert [i for i in ids if i != end] == [i for i in row["tokens"] if i != end]


def official_call(parameters):
    """As the official format_function_call: ast.unparse writes what astunparse does."""
    keywords = [ast.keyword(arg=key, value=ast.Constant(parameters[key])) for key in parameters]
    return ast.unparse(ast.Call(func=ast.Name(id="tool_call"), args=[], keywords=keywords))


def test_call_texts_are_the_official_ones():
    parameters = {
        "text": 'it\'s "so"\n\t\\ 北京 \u00e9 😀',
        "start-date": "2024-01-01",
        "class": None,
        "nested": {"list": [1, 2.5, True, None, "x"], "empty": {}},
        "large": 1e22,
        "small": -0.0,
        "flag": False,
        "": 1,
    }
    row = {"conversations": [turn("user", "u"), {**TOOL_ROW, "parameters": parameters}]}
    call = read_row(row).messages[1].calls[0]
    assert call_text(call) == f"```python\n{official_call(parameters)}\n```"


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        ("plain", "plain"),
        ({"风": ["4级", 1.0, None]}, '{"风": ["4级", 1.0, null]}'),
        ([1, "二"], '[1, "二"]'),
        (7, "7"),
        (None, "null"),
    ],
)
def test_observations_are_written_as_the_official_code_does(seen, text):
    row = {"conversations": [turn("user", "u"), {**TOOL_ROW, "observation": seen}]}
    assert read_row(row).messages[2].content == text


def test_a_row_with_tools_and_its_own_system_has_two_system_blocks(dialect):
    own, asked = turn("system", "own"), turn("user", "u")
    for tools in ([TOOL], []):
        read = read_row({"tools": tools, "conversations": [own, asked, turn("assistant", "a")]})
        ids, _ = ids_and_labels(dialect, read)
        block = f"{tools_block(())[:-2]}{json.dumps(tools, indent=4, ensure_ascii=False)}"
        encode, system = dialect.tokenizer.encode, dialect.tokenizer.id("<|system|>")
        start = [system, *encode("\n"), *encode(block), system, *encode("\n"), *encode("own")]
        assert ids[2 : 2 + len(start)] == start
        assert FORMATS["chatglm3"].write(read)["tools"] == tools


def test_tool_descriptors_are_rendered_as_they_stand(dialect):
    odd = {"parameters": {}, "description": "d", "name": "f", "extra": [1]}
    for tool in (odd, FUNCTION, "f: any text", json.dumps(TOOL), 3):
        read = read_row({"tools": [tool], "conversations": [turn("user", "u")]})
        shown = tools_block(read.tools)
        assert shown.endswith(json.dumps([tool], indent=4, ensure_ascii=False))
        assert FORMATS["chatglm3"].write(read)["tools"] == [tool]


def test_every_row_of_the_real_files_is_read_and_written():
    data = SHARED / "data"
    for file in sorted(data.rglob("*.jsonl")) if data.exists() else []:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                read = read_row(json.loads(line))
                assert losses(read, read_row(FORMATS["openai"].write(read))) in (
                    [],
                    ["the exact descriptors of the tools"],
                )


def test_the_shipped_samples_are_sound():
    rows = open_rows(ROOT / "assets" / "data")
    read = [read_row(rows[number][0]) for number in range(len(rows))]
    assert {problem.code for one in read for problem in check(one)} <= {"tools-unused"}
    assert sum(bool(one.tools) for one in read) == 20

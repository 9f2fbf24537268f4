"""Functions that visitors paste: read without running them, run in the sandbox only."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from glm.cancel import Cancel
from glm.errors import BadRequest, NotAllowed
from glm.messages import ToolCall, ToolResult
from tools import pasted, sandbox
from tools.registry import Context, Registry

CANARY = "canary-81c2"
ISOLATED = sandbox.Sandbox("bubblewrap", "")


@pytest.fixture(scope="module")
def box() -> sandbox.Sandbox:
    found = sandbox.probe()
    if not shutil.which("bwrap") and not found.isolated:
        pytest.skip(found.sentence)
    assert found.isolated, found.sentence
    return found


@pytest.fixture
def context(tmp_path: Path) -> Context:
    for place in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        place.chmod(0o755)
    return Context("ann", "one", tmp_path / "own")


def call(box: sandbox.Sandbox, context: Context, source: str, **arguments: object) -> ToolResult:
    """Paste it, and call it as a model does."""
    tool = pasted.pasted(source, box)
    toolbox = Registry().toolbox([], context, own=[tool])
    return toolbox.call(ToolCall(tool.name, arguments), Cancel())


# ---- reading --------------------------------------------------------------------------------


def test_the_schema_is_that_of_the_signature():
    source = '''
import math
from typing import Annotated, Literal, Optional

def area(
    radius: float,
    unit: Literal["m", "km"] = "m",
    *,
    digits: Annotated[int, "how many"] = 2,
    at: "Optional[tuple[int, int]]" = None,
    tags: list[str] | None = None,
) -> str:
    """The area of a circle.

    Args:
        radius: of the circle
    """
    return str(round(math.pi * radius**2, digits)) + unit
'''
    spec = pasted.pasted(source, ISOLATED).spec
    assert (spec.name, spec.description) == ("area", "The area of a circle.")
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "radius": {"type": "number", "description": "of the circle"},
            "unit": {"type": "string", "enum": ["m", "km"], "default": "m"},
            "digits": {"type": "integer", "description": "how many", "default": 2},
            "at": {
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 2,
                "maxItems": 2,
            },
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["radius"],
    }


def test_nothing_of_it_runs_while_it_is_read(tmp_path):
    canary = tmp_path / "ran"
    write = f"open({str(canary)!r}, 'w')"
    source = f"""
{write}

@{write}.write
def f(a: int = {write}, b: "str" = "x" * 3) -> {write}:
    "Do."
    {write}
"""
    tool = pasted.pasted(source, ISOLATED)
    assert tool.name == "f"
    assert not canary.exists()
    for annotation in (
        write,
        f'"{write}"',
        f"list[{write}]",
        f"__import__('os').system('touch {canary}')",
    ):
        with pytest.raises(BadRequest, match="not a type|no type"):
            pasted.pasted(f"def f(a: {annotation}): ...", ISOLATED)
    assert not canary.exists()


@pytest.mark.parametrize("begin", [":param", "Args:\n    a", "a", "a ("])
def test_a_docstring_of_spaces_is_read_at_once(begin):
    source = f'def f(a: int):\n    """Do.\n\n    {begin}{" " * 15_000}b\n    """\n'
    assert pasted.pasted(source, ISOLATED).spec.description.startswith("Do.")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("", "paste a Python function"),
        ("x = 1", "paste a Python function"),
        ("def f(:", "line 1 is no Python"),
        ("def f(a): ...", "the parameter 'a' needs a type"),
        ("def f(a: bytes): ...", "'bytes' is not a type JSON has"),
        ("def f(a: list[5]): ...", "'5' is not a type JSON has"),
        ("def f(*a: int): ...", "cannot be given by name"),
        ("def f(): ...\ndef g(): ...", "paste one function, not f, g"),
        ("def f(): ...\0", "no Python"),
        ("def f(a: int" + " | int" * 5000 + "): ...", "longer than"),
        ("def f(a: int = " + "(" * 5000 + "): ...", "no Python"),
        ("def f(a: " + "list[" * 900 + "int" + "]" * 900 + "): ...", ""),
        ("def f(a: int = " + "-" * 9000 + "1): ...", ""),
    ],
)
def test_what_cannot_be_a_tool_is_refused_in_one_sentence(source, sentence):
    with pytest.raises(BadRequest) as caught:
        pasted.pasted(source, ISOLATED)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_without_isolation_it_is_refused():
    for kind in ("none", "off"):
        with pytest.raises(NotAllowed, match="needs a sandbox"):
            pasted.pasted("def f(): ...", sandbox.Sandbox(kind, "There is none."))


# ---- running --------------------------------------------------------------------------------


def test_it_is_called_with_checked_arguments(box, context):
    source = """
def _twice(x):
    return 2 * x

def pair(at: tuple[int, int], scale: int = 3) -> dict:
    "Where."
    assert isinstance(at, tuple)
    return {"sum": _twice(sum(at)) * scale}
"""
    assert call(box, context, source, at=[1, 2]).text == '{"sum": 18}'
    wrong = call(box, context, source, at=["a", 2])
    assert wrong.error
    assert "at" in wrong.text


def test_decorators_coroutines_and_what_it_prints(box, context):
    source = """
import asyncio
@register_tool
async def wait(seconds: float) -> None:
    "Wait."
    await asyncio.sleep(seconds)
    print("waited")
"""
    assert call(box, context, source, seconds=0).text.strip() == "waited"


def test_its_files_stay_in_the_conversation_and_bytes_are_pictures(box, context):
    source = """
def draw() -> bytes:
    "Draw."
    open("drawn", "w").write("x")
    return b"\\x89PNG\\r\\n\\x1a\\n" + b"0" * 50
"""
    result = call(box, context, source)
    assert len(result.images) == 1
    assert (context.folder / "drawn").exists()


def test_it_cannot_read_the_server(box, context, monkeypatch):
    monkeypatch.setenv("GLM_SECRET", CANARY)
    canary = sandbox.ROOT / "data" / CANARY
    canary.parent.mkdir(exist_ok=True)
    canary.write_text(CANARY)
    source = f"""
import os
def look() -> str:
    "Look."
    seen = [str(dict(os.environ))]
    for name in ({str(canary)!r}, {str(sandbox.ROOT / "README.md")!r}, "/etc/passwd"):
        try:
            seen.append(open(name).read())
        except OSError:
            pass
    return str(len(seen)) + seen[0]
"""
    try:
        result = call(box, context, source)
    finally:
        canary.unlink()
    assert result.text.startswith("1{")
    assert CANARY not in result.text


def test_it_cannot_reach_the_network(box, context):
    with socket.create_server(("127.0.0.1", 0)) as ear:
        port = ear.getsockname()[1]
        source = f"""
import socket
def dial() -> str:
    "Dial."
    socket.create_connection(("127.0.0.1", {port}), 5)
    return "in"
"""
        result = call(box, context, source)
    assert result.error
    assert result.text.startswith("ConnectionRefusedError") or "OSError" in result.text


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("while True: pass", "longer than 1 s"),
        ("raise KeyError('x' * 10**6)", "KeyError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(0)", "without an answer"),
        ("import os; os.kill(os.getpid(), 9)", "without an answer"),
        ("return bytearray(6 << 30)", "MemoryError"),
        ("return 'x' * (9 << 20)", "more than 8 MiB"),
        ("import os\n    while True: os.write(3, b'x' * 65536)", "more than 8 MiB"),
        ("import os\n    os.write(3, b'nonsense')\n    os._exit(0)", "without an answer"),
        ("import os\n    os.write(3, b'[' * 100000)\n    os._exit(0)", "without an answer"),
    ],
)
def test_what_goes_wrong_is_one_sentence(box, context, body, sentence):
    tool = pasted.pasted(
        f"def f():\n    'Go.'\n    {body}", box, seconds=1 if "1 s" in sentence else 20
    )
    result = Registry().toolbox([], context, own=[tool]).call(ToolCall("f"), Cancel())
    assert result.error
    assert sentence in result.text
    assert "\n" not in result.text
    assert "Traceback" not in result.text


def test_a_cancelled_call_ends(box, context):
    stop = Cancel()
    stop.set()
    tool = pasted.pasted("def f():\n    'Go.'\n    while True: pass", box)
    with pytest.raises(pasted.ToolError, match="stopped"):
        tool.run({}, context, stop)

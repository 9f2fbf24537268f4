"""The operator's own tools: in a child process, ended with everything they started."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from glm.errors import ToolError
from glm.messages import ToolCall, ToolResult
from tools import child, process
from tools.own import OwnTools
from tools.registry import Cancel, Context, Registry

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups and named pipes are POSIX")

TOOLS = '''
import os, subprocess, sys, time
from pathlib import Path
from typing import Annotated
from tool_registry import register_tool
from glm.errors import ToolError
from tools.registry import Context, tool

print("printed while importing")
(Path(__file__).parent / "imported_by").write_text(str(os.getpid()))
ELSEWHERE = tool.__module__

@register_tool
def add(a: Annotated[int, "the first", True], b: Annotated[int, "the second", True]) -> int:
    """Add two numbers."""
    return a + b

@tool(timeout=1000)
def start_and_hang(context: Context) -> str:
    """Start children in every way, then hang."""
    plain = subprocess.Popen(["sleep", "1000"])
    apart = subprocess.Popen(["sleep", "1000"], start_new_session=True, env={})
    shell = "setsid sleep 1000 >/dev/null & echo $!"
    orphan = subprocess.run(["sh", "-c", shell], stdout=subprocess.PIPE, text=True).stdout
    tell(context, os.getpid(), plain.pid, apart.pid, orphan)
    time.sleep(1000)

def tell(context, *pids):
    (context.folder / "pids").write_text(" ".join(str(pid).strip() for pid in pids))

@tool(timeout=0.2)
def hang() -> str:
    """Hang."""
    time.sleep(1000)

@tool
def crash(context: Context) -> str:
    """Die, and leave somebody behind."""
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    (context.folder / "left").write_text(str(left.pid))
    os._exit(3)

@tool
def look_around(context: Context) -> dict:
    """Tell what is here."""
    given = sys.stdin.read()
    return {"environment": sorted(os.environ), "stdin": given, "owner": context.owner,
            "cwd": os.getcwd(), "file": context.files["a.txt"].read_text()}

@tool
def shout() -> str:
    """Print ten megabytes."""
    print("x" * 10_000_000)
    os.write(2, b"x" * 1_000_000)
    return "done" + "x" * 10_000_000

@tool
def forge(size: int) -> str:
    """Write to the pipe of the answer."""
    line = b"x" * size + b"\\n"
    for number in range(3, 32):
        try:
            os.write(number, line)
        except OSError:
            pass
    return "not reached by the reader"

@tool
def fail(how: str) -> str:
    """Fail."""
    if how == "sentence":
        raise ToolError("that cannot be done")
    if how == "exit":
        sys.exit(3)
    raise ValueError(f"no {Path(__file__)}")
'''


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("my")
    (folder / "mine.py").write_text(TOOLS, encoding="utf-8")
    registry = Registry()
    assert OwnTools(folder, registry).refresh() == {}
    assert int((folder / "imported_by").read_text()) != os.getpid()
    return registry


@pytest.fixture
def context(tmp_path: Path) -> Context:
    upload = tmp_path / "a.txt"
    upload.write_text("an upload")
    return Context("ann", "c1", tmp_path / "conversation", {"a.txt": upload})


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    for left in psutil.Process().children(recursive=True):
        assert str(process.CHILD) not in left.cmdline()


def called(registry: Registry, context: Context, name: str, **values: Any) -> ToolResult:
    toolbox = registry.toolbox([tool.name for tool in registry.tools()], context)
    result: ToolResult = toolbox.call(ToolCall(name, values), Cancel())
    return result


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_tool_of_chatglm3_runs_in_a_child(registry, context):
    assert registry.get("add").origin == "my"
    assert registry.get("add").spec.description == "Add two numbers."
    assert called(registry, context, "add", a=1, b="2").text == "3"
    assert "'b' is missing" in called(registry, context, "add", a=1).text


def test_a_tool_sees_its_context_and_nothing_of_the_program(registry, context, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    text = called(registry, context, "look_around").text
    assert "OPENAI_API_KEY" not in text and "PYTHONPATH" not in text
    for part in ('"owner": "ann"', '"stdin": ""', str(context.folder), "an upload"):
        assert part in text


def test_a_cancelled_tool_is_gone_with_all_it_started(registry, context):
    context.folder.mkdir()
    os.mkfifo(context.folder / "pids")
    cancel, found = Cancel(), []
    toolbox = registry.toolbox(["start_and_hang", "add"], context)
    call = ToolCall("start_and_hang")
    thread = threading.Thread(target=lambda: found.append(toolbox.call(call, cancel)))
    thread.start()
    pids = [int(pid) for pid in (context.folder / "pids").read_text().split()]
    assert len(pids) == 4 and all(map(is_alive, pids))
    cancel.set()
    assert not any(map(is_alive, pids))
    thread.join()
    assert found[0].error and found[0].text == "start_and_hang was stopped"
    assert called(registry, context, "add", a=1, b=1).text == "2"  # still healthy


def test_a_tool_that_hangs_is_ended_at_its_limit(registry, context):
    result = called(registry, context, "hang")
    assert result.error and result.text == "hang was stopped: it ran longer than 0.2 s"


def test_what_a_dead_tool_leaves_behind_is_ended(registry, context):
    result = called(registry, context, "crash")
    assert result.error and "ended without an answer (exit code 3)" in result.text
    assert not is_alive(int((context.folder / "left").read_text()))


def test_a_tool_ends_when_the_program_has_gone(registry, context):
    context.folder.mkdir()
    os.mkfifo(context.folder / "pids")
    running = process.Child(context.folder)
    path = next(iter(registry.tools())).run.__closure__  # the file of the runner
    file = next(cell.cell_contents for cell in path if isinstance(cell.cell_contents, Path))
    where = {"owner": "", "conversation": "", "folder": str(context.folder), "files": {}}
    request = {"op": "call", "file": str(file), "tool": "start_and_hang", "arguments": {}}
    line = process.json.dumps({**request, "context": where}).encode() + b"\n"
    thread = threading.Thread(target=running.exchange, args=[line])
    thread.start()
    pids = (context.folder / "pids").read_text().split()
    running._process.stdin.close()  # what the system does when the program is killed
    thread.join()  # the pipe of the answer was closed by its end
    assert int(pids[0]) == running.pid
    running.end()


def test_what_a_tool_prints_is_thrown_away(registry, context):
    result = called(registry, context, "shout")
    assert not result.error and result.text.startswith("donexxx")
    assert "[cut: 10000004 characters in all]" in result.text


def test_an_answer_that_is_none_is_an_error(registry, context, monkeypatch):
    assert "something that is no result" in called(registry, context, "forge", size=10).text
    monkeypatch.setattr(process, "MAX_REPLY", 2**16)
    assert "more than" in called(registry, context, "forge", size=10_000_000).text


def test_a_failure_names_no_path(registry, context):
    assert called(registry, context, "fail", how="sentence").text == "that cannot be done"
    assert called(registry, context, "fail", how="exit").text == "SystemExit: 3"
    result = called(registry, context, "fail", how="path")
    assert result.error and result.text == "ValueError: no [removed]"


# ---- the folder ----------------------------------------------------------------------------

GOOD = 'from tools.registry import tool\n@tool\ndef {}() -> int:\n    """One."""\n    return 1\n'


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


def test_a_file_that_changes_is_read_again(tmp_path):
    registry = Registry()
    own = OwnTools(tmp_path, registry)
    assert own.refresh() == {} and registry.tools() == ()
    write(tmp_path / "a.py", GOOD.format("one"))
    write(tmp_path / "_left_out.py", "1/0")
    write(tmp_path / "example.py.txt", "1/0")
    assert own.refresh() == {} and [tool.name for tool in registry.tools()] == ["one"]
    kept = registry.tools()
    assert own.refresh() == {} and registry.tools() == kept
    write(tmp_path / "a.py", GOOD.format("other_name"))
    own.refresh()
    assert [tool.name for tool in registry.tools()] == ["other_name"]
    (tmp_path / "a.py").unlink()
    assert own.refresh() == {} and registry.tools() == ()


def test_a_folder_that_is_not_there_has_no_tools(tmp_path):
    assert OwnTools(tmp_path / "gone", Registry()).refresh() == {}


def test_a_name_that_is_taken_is_a_problem_of_the_file(tmp_path):
    write(tmp_path / "a.py", GOOD.format("one"))
    write(tmp_path / "b.py", GOOD.format("one"))
    registry = Registry()
    problems = OwnTools(tmp_path, registry).refresh()
    assert list(problems) == ["b.py"] and "'one' exists already" in problems["b.py"]
    assert len(registry.tools()) == 1


def test_a_file_that_never_ends_its_import_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.own.READ_SECONDS", 0.2)
    write(tmp_path / "a.py", "import time\ntime.sleep(1000)\n")
    problems = OwnTools(tmp_path, Registry()).refresh()
    assert "a.py: it takes longer than" in problems["a.py"]


@pytest.mark.parametrize(
    "text,says",
    [
        ("x = 1\n", "bad.py: it has no function with @tool"),
        ("import os\n1 / 0\n", "bad.py, line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "bad.py, line 1: SyntaxError: invalid syntax"),
        ("raise SystemExit('out')", "bad.py, line 1: SystemExit: out"),
        ("from tools.registry import tool\n@tool\ndef f(x): ...\n",
         "bad.py, line 2: TypeError: f(): the parameter 'x' needs a type"),
        ("open('/home/ann/key.txt/x')", "bad.py, line 1: FileNotFoundError: No such file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_sentence(text, says, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BaseException) as told:  # the child answers with this sentence
        child.load(path)
    sentence = child.sentence(told.value, path)
    assert sentence.startswith(says)
    assert "\n" not in sentence and str(tmp_path) not in sentence and "ann" not in sentence


def test_the_example_can_be_used(tmp_path):
    example = Path(process.CHILD).parent / "my" / "example.py.txt"
    write(tmp_path / "dice.py", example.read_text(encoding="utf-8"))
    registry = Registry()
    assert OwnTools(tmp_path, registry).refresh() == {}
    assert registry.get("roll_dice").spec.parameters["required"] == ["count"]


def test_a_child_that_is_over_is_never_killed_again(tmp_path):
    running = process.Child(tmp_path)
    running.end()
    running.kill()  # its id may be another process's by now
    with pytest.raises(ToolError, match="stopped"):
        order = Cancel()
        order.set()
        process.ask({"op": "list", "file": "x.py"}, order)

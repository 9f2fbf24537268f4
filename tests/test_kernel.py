"""The Python interpreter of a conversation: what it shows, and what it survives."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from glm.cancel import Cancel
from glm.errors import ToolError
from glm.messages import ToolCall
from tools import interpreter as interpreter_tool
from tools import kernel_output, sandbox, workspace
from tools.kernel_output import Output
from tools.kernel_pool import KernelPool
from tools.registry import Context, Registry

BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def box() -> sandbox.Sandbox:
    found = sandbox.probe()
    if not shutil.which("bwrap") and not found.isolated:
        pytest.skip(found.sentence)
    assert found.isolated, found.sentence
    return found


@pytest.fixture(scope="module")
def pool(box: sandbox.Sandbox) -> Iterator[KernelPool]:
    made = KernelPool(box, most=3)
    yield made
    made.close()
    assert made.running() == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """One conversation for the tests that leave it usable."""
    return Context("ann", "one", reachable(tmp_path_factory.mktemp("one")))


@pytest.fixture
def fresh(tmp_path: Path, pool: KernelPool) -> Iterator[Context]:
    """A conversation for a test that may break it."""
    context = Context("ben", tmp_path.name, reachable(tmp_path))
    yield context
    pool.restart(context.owner, context.conversation)


def reachable(folder: Path) -> Path:
    """pytest's folders are closed to the user inside where Landlock is used as root."""
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(0o755)
    return folder


def run(pool: KernelPool, context: Context, code: str, seconds: float = 60) -> Output:
    return pool.run(context, code, seconds, lambda: False)


# ---- what it shows --------------------------------------------------------------------------


def test_variables_stay_and_the_last_value_is_shown(pool, place):
    assert run(pool, place, "x = 6 * 7").text == ""
    done = run(pool, place, "print('so')\nx")
    assert (done.text, done.error) == ("so\n42", "")


def test_a_figure_is_a_picture_and_chinese_has_glyphs(pool, place):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 2])\nplt.title('A中')\nplt.show()"
    done = run(pool, place, code)
    assert done.error == ""
    assert "[Image]" in done.text
    assert done.images[0].data.startswith(kernel_output.PNG)
    if list(Path("/usr/share/fonts").rglob("NotoSansCJK-Regular.ttc")):
        assert "missing from font" not in done.text


def test_without_matplotlib_it_says_so(pool, place):
    code = "import sys\nsys.modules['matplotlib'] = None\nimport matplotlib.pyplot"
    done = run(pool, place, code)
    assert done.error.startswith("ModuleNotFoundError: ")
    assert "matplotlib" in done.error
    run(pool, place, "del sys.modules['matplotlib']")


def test_a_data_frame_is_a_table_and_text(pool, place):
    done = run(pool, place, "import pandas\npandas.DataFrame({'n': [1, 2]}, index=['a', 'b'])")
    assert done.table is not None
    assert done.table.columns == ("", "n")
    assert done.table.rows == (("a", "1"), ("b", "2"))
    assert "   n\na  1" in done.text


def test_an_error_is_one_line_with_its_place(pool, place):
    done = run(pool, place, "def f():\n    return 1 / 0\n\nf()")
    assert done.error == "ZeroDivisionError: division by zero (line 2: return 1 / 0)"
    assert "Traceback" not in done.text
    assert run(pool, place, "x =").error == "SyntaxError: invalid syntax (line 1)"


def test_nobody_is_there_to_answer_a_question(pool, place):
    assert "StdinNotImplementedError" in run(pool, place, "input('your password?')").error


def test_files_come_in_and_go_out(pool, box, tmp_path):
    upload = tmp_path / "uploads" / "table.csv"
    upload.parent.mkdir()
    upload.write_text("n\n1\n2\n")
    context = Context("ann", "files", reachable(tmp_path) / "own", {"table.csv": upload})
    name = f"{box.inside(context.folder)}/table.csv"
    done = run(pool, context, f"text = open({name!r}).read()\nopen('out.txt', 'w').write(text)")
    assert (done.text, done.error) == ("6", "")
    assert [file.name for file in workspace.files(context.folder)] == ["out.txt", "table.csv"]
    upload.write_text("n\n3\n")
    os.utime(upload, ns=(1, 1))
    assert run(pool, context, "open('table.csv').read()").text == r"'n\n3\n'"
    assert workspace.read(context.folder, "out.txt") == b"n\n1\n2\n"
    pool.restart("ann", "files")


def test_one_conversation_does_not_see_the_folder_or_the_variables_of_another(pool, place, fresh):
    run(pool, place, "mine = 1\nopen('mine.txt', 'w').write('mine')")
    done = run(pool, fresh, "import os\nprint(os.listdir('.'), 'mine' in globals())")
    assert done.text == "[] False\n"
    code = f"open({str(place.folder / 'mine.txt')!r}).read()"
    assert "Error" in run(pool, fresh, code).error


# ---- what it survives -----------------------------------------------------------------------


def test_ten_megabytes_of_output_are_cut(pool, place):
    done = run(pool, place, "print('x' * 10_000_000)")
    assert len(done.text) == kernel_output.OUTPUT
    assert done.cut
    assert run(pool, place, "1 + 1").text == "2"


def test_a_value_too_large_to_send_does_not_break_what_follows(pool, place):
    assert run(pool, place, "'x' * 30_000_000").cut
    assert run(pool, place, "1 + 1").text == "2"


def test_an_endless_loop_is_interrupted_and_the_variables_stay(pool, place):
    run(pool, place, "kept = 5")
    done = run(pool, place, "while True: pass", seconds=1)
    assert done.error == "the code was stopped: it ran longer than 1 s"
    assert not done.lost
    assert run(pool, place, "kept").text == "5"


def test_code_that_will_not_be_interrupted_is_killed_and_a_fresh_one_starts(pool, fresh):
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    done = run(pool, fresh, code, seconds=1)
    assert done.lost
    assert run(pool, fresh, "1 + 1").text == "2"


def test_a_cancelled_call_ends(pool, fresh):
    run(pool, fresh, "1")
    stop = Cancel()
    threading.Timer(0.5, stop.set).start()
    done = pool.run(fresh, "while True: pass", 600, stop.is_set)
    assert done.error == "the code was stopped"


def test_a_child_that_outlives_its_call_is_gone(pool, fresh):
    code = """
import subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(child.poll())
"""
    assert run(pool, fresh, code).text == "None\n"
    assert run(pool, fresh, "child.wait(60)").text == "-9"


def test_a_fork_bomb_is_ended_and_a_fresh_one_starts(pool, fresh):
    done = run(pool, fresh, BOMB, seconds=2)
    assert done.error
    assert run(pool, fresh, "1 + 1").text == "2"


def test_memory_and_the_size_of_a_file_are_limited(pool, place):
    assert "MemoryError" in run(pool, place, "block = bytearray(6 << 30)").error
    done = run(pool, place, "open('big', 'wb').write(bytes(60 << 20))")
    assert "File too large" in done.error
    run(pool, place, "import os\nos.remove('big')")


def test_many_files_within_the_limit_of_one_are_too_much(pool, fresh):
    code = """
import os, time
for number in range(10):
    with open(str(number), "wb") as file:
        file.write(os.urandom(1 << 20) * 40)
time.sleep(60)
"""
    done = run(pool, fresh, code)
    assert done.lost
    assert "the files of the conversation take more than 256 MiB" in done.error


def test_a_kernel_that_kills_itself_is_replaced(pool, fresh):
    done = run(pool, fresh, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert done.lost
    assert "ended" in done.error
    assert run(pool, fresh, "1 + 1").text == "2"


def test_forged_messages_are_ignored(pool, fresh):
    """The code holds the key and the sockets, so it can say what it likes, but only of itself."""
    code = """
shell = get_ipython().kernel
session, socket = shell.session, shell.iopub_socket
parent = shell.get_parent()
for content in ({"execution_state": []}, {"data": {"image/png": "?"}}, {"text": 5}, {"data": []}):
    for kind in ("display_data", "stream", "error", "nonsense"):
        session.send(socket, kind, content, parent=parent)
print("still here")
"""
    assert "still here" in run(pool, fresh, code).text
    assert run(pool, fresh, "1 + 1").text == "2"


# ---- the pool -------------------------------------------------------------------------------


def test_the_one_idle_longest_makes_room(box, tmp_path):
    reachable(tmp_path)
    pool = KernelPool(box, most=1)
    first, second = (Context("ann", name, tmp_path / name) for name in "ab")
    try:
        run(pool, first, "x = 1")
        run(pool, second, "x = 2")
        assert pool.running() == 1
        assert "NameError" in run(pool, first, "x").error
    finally:
        pool.close()
    assert not [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        and "bwrap" in process.name()
        and any(str(tmp_path) in part for part in process.cmdline())
    ]


def test_when_all_are_busy_the_next_is_told(box, tmp_path):
    reachable(tmp_path)
    pool = KernelPool(box, most=1)
    first, second = (Context("ann", name, tmp_path / name) for name in "ab")
    stop = Cancel()
    run(pool, first, "1")
    busy = threading.Thread(
        target=pool.run, args=(first, "open('on', 'w')\nwhile True: pass", 600, stop.is_set)
    )
    busy.start()
    try:
        while not (first.folder / "on").exists():
            assert busy.is_alive()
        with pytest.raises(ToolError, match="all 1 Python interpreters are busy"):
            run(pool, second, "1")
    finally:
        stop.set()
        busy.join()
        pool.close()


def test_an_idle_interpreter_ends(box, tmp_path):
    pool = KernelPool(box, idle=0.0, sweep=0.01)
    run(pool, Context("ann", "idle", reachable(tmp_path)), "1")
    ended = threading.Event()
    for _ in range(600):
        if pool.running() == 0:
            ended.set()
            break
        ended.wait(0.1)
    pool.close()
    assert ended.is_set()


class Slow:
    """A kernel that takes its time to start."""

    def __init__(self, *_: object) -> None:
        self.alive = True
        made.append(self)
        starting.set()
        assert may_start.wait(60)

    def kill(self) -> None: ...

    def close(self) -> None:
        self.alive = False


made: list[Slow] = []
starting, may_start = threading.Event(), threading.Event()


def test_a_kernel_that_starts_for_a_conversation_that_is_gone_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.kernel_pool.Kernel", Slow)
    pool = KernelPool(sandbox.Sandbox("none", "No isolation."))
    told: list[str] = []

    def call() -> None:
        try:
            run(pool, Context("ann", "one", tmp_path), "1")
        except ToolError as error:
            told.append(str(error))

    caller = threading.Thread(target=call)
    forgetter = threading.Thread(target=pool.restart, args=("ann", "one"))
    caller.start()
    assert starting.wait(60)
    forgetter.start()
    while pool._places:
        assert forgetter.is_alive()
    may_start.set()
    caller.join()
    forgetter.join()
    pool.close()
    assert told == ["the Python interpreter was ended"]
    assert [kernel.alive for kernel in made] == [False]


def test_off_means_off(tmp_path):
    pool = KernelPool(sandbox.Sandbox("off", "No isolation works here."))
    with pytest.raises(ToolError, match="the Python interpreter is off: No isolation works here"):
        run(pool, Context("ann", "off", tmp_path), "1")
    pool.close()


# ---- the tool -------------------------------------------------------------------------------


def test_the_observation_has_the_official_layout(pool, place):
    """THUDM/ChatGLM3 PROMPT.md: a block named result, and [Image] for a figure."""
    toolbox = Registry([interpreter_tool.interpreter(pool)]).toolbox(["interpreter"], place)
    result = toolbox.call(ToolCall("interpreter", {"code": "{'a': 1}"}), Cancel())
    assert (result.text, result.error) == ("```result\n{'a': 1}\n```", False)
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    result = toolbox.call(ToolCall("interpreter", {"code": draw}), Cancel())
    assert result.text == "```result\n[Image]\n```"
    assert len(result.images) == 1
    result = toolbox.call(ToolCall("interpreter", {"code": "print('x' * 9000)"}), Cancel())
    assert result.text.endswith("x [TRUNCATED]\n```")


def test_it_asks_first_where_nothing_isolates_it(box):
    none = KernelPool(sandbox.probe("none"))
    isolated = KernelPool(box)
    try:
        assert interpreter_tool.interpreter(none).policy == "ask"
        assert interpreter_tool.interpreter(isolated).policy == "allow"
    finally:
        none.close()
        isolated.close()

"""Which tests run here, and what they share.

Marks: `slow` runs with --slow, `network` with --network, `gpu` where there is one; the others are
not collected at all. `browser` tests are skipped, and counted, where no Chromium is found.
GLM_NO_SKIPS=1 (CI) makes any skip a failure.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_BROWSER = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")

# The page and the tests never tell anybody that they run.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# In the background a shell has its programs, and theirs, ignore Ctrl-C; some tests send it.
in_main = threading.current_thread() is threading.main_thread()
if in_main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two processes that each compute on all cores are slower than two on one core each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")
    parser.addoption("--network", action="store_true", help="run the tests that need the internet")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = {
        mark
        for mark, present in (
            ("slow", config.getoption("--slow")),
            ("network", config.getoption("--network")),
            ("gpu", shutil.which("nvidia-smi") is not None),
        )
        if not present
    }
    left_out = [item for item in items if any(item.get_closest_marker(m) for m in absent)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if find_browser() is None:
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason="no Chromium found on this machine"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """As the program does once it is up: a collection need not look at every library again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = len(terminalreporter.stats.get("skipped", []))
    if find_browser() is None and skipped:
        terminalreporter.write_line(
            f"{skipped} browser tests were skipped: no Chromium or Chrome was found. "
            "Install one (Debian: apt install chromium fonts-noto-cjk) to run them."
        )
    if skipped and os.environ.get("GLM_NO_SKIPS"):
        terminalreporter.write_line(f"GLM_NO_SKIPS is set and {skipped} tests were skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.stats.get("skipped") and os.environ.get("GLM_NO_SKIPS"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def find_browser(names: Sequence[str] = BROWSERS) -> str | None:
    """The Chromium or Chrome of this machine."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and MAC_BROWSER.exists():
        return str(MAC_BROWSER)
    return found


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; only tests marked `browser` may ask for it."""
    path = find_browser()
    assert path, "mark the test with pytest.mark.browser"
    return path

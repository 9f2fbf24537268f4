"""Which tests run where: slow ones on request, browser ones where there is a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUITE = """
import pytest

def test_plain(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.network
def test_network(): pass

@pytest.mark.browser
def test_page(): pass

@pytest.mark.browser
def test_other_page(): pass
"""


@pytest.fixture
def suite(tmp_path):
    """A small suite under the same rules, on a machine without a browser."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "test_it.py").write_text(SUITE)

    def run(*arguments: str, **environ: str) -> tuple[int, str]:
        (tmp_path / "bin").mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": str(tmp_path / "bin"), "GLM_NO_SKIPS": "", **environ},
        )
        return done.returncode, done.stdout

    return run


@pytest.mark.skipif(
    Path("/Applications/Google Chrome.app").exists(), reason="this Mac always has a browser"
)
def test_without_a_browser_its_tests_are_skipped_and_counted(suite):
    code, said = suite()
    assert code == 0
    assert "1 passed, 2 skipped, 2 deselected" in said
    assert "2 browser tests were skipped: no Chromium or Chrome was found" in said


def test_slow_tests_run_when_asked_for(suite):
    assert "2 passed" in suite("--slow")[1]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_where_nothing_may_be_skipped_a_skip_is_a_failure(suite, processes):
    code, said = suite("-n", processes, GLM_NO_SKIPS="1")
    assert code == 1 and "2 tests were skipped" in said

"""A stranger's first minutes: a clone without `.venv`, an install that is killed, two at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import Program, clean_environment, free_port

ROOT = Path(__file__).resolve().parent.parent
INSTALL_SECONDS = 900


@pytest.fixture
def clone(tmp_path) -> Iterator[Path]:
    """The committed files, without history; two gigabytes when it is done, so it goes at once."""
    folder = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(folder)], check=True
    )
    yield folder
    shutil.rmtree(folder)


def start(clone: Path) -> Program:
    """`python launch.py` with a Python that has none of the packages."""
    port = free_port()
    log = clone.parent / f"output-{port}.log"
    environ = clean_environment()
    environ.pop("VIRTUAL_ENV", None)
    python = getattr(sys, "_base_executable", sys.executable)
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [python, "launch.py", "--port", str(port)],
            cwd=clone, stdout=file, stderr=subprocess.STDOUT, env=environ, start_new_session=True,
        )  # fmt: skip
    return Program(process, port, log, clone / "data")


def end(program: Program) -> None:
    """Kill the program and its pip."""
    if program.process.poll() is None:
        os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait()


@pytest.mark.slow
@pytest.mark.timeout(2 * INSTALL_SECONDS)
def test_a_clean_clone_survives_a_killed_install_and_two_launches_at_once(clone):
    programs = [start(clone)]
    try:
        programs[0].wait_for_output("package ", INSTALL_SECONDS)  # pip is at work
        end(programs[0])
        programs += [first := start(clone)]
        first.wait_for_output("was interrupted", 60)
        programs += [second := start(clone)]
        second.wait_for_output("another launch is installing", 60)
        for program in (first, second):
            program.wait_until_up(INSTALL_SECONDS)
            assert program.get("/", {"accept": "text/html"})[0] == 200
        assert first.stop() == 0 and second.stop() == 0
        assert second.output.count("installing the packages") == 0
        assert (clone / ".venv" / "launch-stamp.json").exists()
    finally:
        for program in programs:
            end(program)

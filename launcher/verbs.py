"""The words after `python launch.py`: none (serve), prepare, test, lint, hash-password.

Finds the environment first and hands over to its Python; a Problem ends with its sentence.
"""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from launcher import environment, options
from launcher.options import ROOT
from launcher.problems import Problem

REQUIREMENTS = ROOT / "requirements.txt"
TEST_REQUIREMENTS = ROOT / "requirements-test.txt"
STRICT = ("glm/messages.py", "glm/engines", "tools", "api", "finetune/config.py", "launcher")
# Each process keeps a gigabyte of libraries; a file's tests mostly stay in one of them.
PARALLEL = ("--numprocesses=logical", "--maxprocesses=4", "--dist=worksteal")
INTERRUPTED, TERMINATED = 130, 143


def run(argv: Sequence[str]) -> int:
    """Carry out the command line; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    verb = argv[0] if argv and argv[0] in VERBS else ""
    try:
        return VERBS[verb](list(argv[1:] if verb else argv))
    except Problem as problem:
        print(f"GLM Workbench: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def serve(argv: list[str]) -> int:
    """Open the page."""
    wanted = options.read(argv, os.environ)
    python = environment.find([REQUIREMENTS])
    if not environment.is_current(python):
        return environment.hand_over(python, argv)
    from launcher.serve import serve as start

    return start(wanted)


def prepare(argv: list[str]) -> int:
    """Find or make the environment and print the path of its Python, for scripts."""
    print(environment.find([REQUIREMENTS]))
    return 0


def test(argv: list[str]) -> int:
    """Run pytest with the rest of the command line, on several cores; `-n 0` in one process.

    What is slow computes on all cores by itself, so with --slow it is one process, too.
    """
    return _in_environment(["pytest", *(() if "--slow" in argv else PARALLEL), *argv])


def lint(argv: list[str]) -> int:
    """ruff check, ruff format --check, and mypy on the strict files; all three always run."""
    fix = "--fix" in argv
    strict = [name for name in STRICT if (ROOT / name).exists()]
    codes = [
        _in_environment(["ruff", "check", *(["--fix"] if fix else []), "."]),
        _in_environment(["ruff", "format", *([] if fix else ["--check"]), "."]),
        _in_environment(["mypy", *strict]),
    ]
    return max(codes)


def hash_password(argv: list[str]) -> int:
    """Print `USER:HASH` for an --auth file; the password is asked for, or read from a pipe."""
    from api.accounts import hash_password

    user = argv[0] if argv else "operator"
    asks = sys.stdin.isatty()
    password = getpass.getpass("password: ") if asks else sys.stdin.readline().rstrip("\n")
    if not password:
        raise Problem("an empty password is no password")
    print(f"{user}:{hash_password(password)}")
    return 0


def _in_environment(module: list[str]) -> int:
    files: list[Path] = [REQUIREMENTS, TEST_REQUIREMENTS]
    python = environment.find(files)
    with subprocess.Popen([str(python), "-m", *module], cwd=ROOT) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)  # so that `finally` ends the children


VERBS: dict[str, Callable[[list[str]], int]] = {
    "": serve,
    "prepare": prepare,
    "test": test,
    "lint": lint,
    "hash-password": hash_password,
}

"""A training run is a folder; this is who may write in it, and how a run ended.

    config.yaml command.json pid train.log metrics.jsonl exit_code loss.png
    tensorboard/ checkpoints/ adapter/

(`model/` in place of `adapter/` where all of a model learnt.) It is all that the trainer and the
page share, so either may restart. No torch in here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from glm.adapters.card import write_json
from glm.errors import BadRequest

State = Literal["empty", "running", "finished", "failed", "killed"]
SAME_START = 1.0  # seconds by which the system may tell one process's start differently
_LOCKED_BYTE = 1 << 20  # behind all that is written, for Windows locks what it reads


class InUse(BadRequest):
    """Another process trains in this folder."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run stands. `code` is its exit code and `reason` its last sentence, where it ended."""

    state: State
    code: int | None = None
    reason: str = ""
    pid: int | None = None


class RunFolder:
    """The files of a run by name, its log, and the lock that keeps others out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.command = path / "command.json"
        self.pid = path / "pid"
        self.log_file = path / "train.log"
        self.metrics = path / "metrics.jsonl"
        self.exit_code = path / "exit_code"
        self.picture = path / "loss.png"
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"
        self.model = path / "model"
        self.begun = False

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder alone. Raises InUse, naming the process that has it.

        The lock belongs to the open file, so it ends with its holder, however that ends.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.pid, os.O_RDWR | os.O_CREAT, 0o644)
        os.set_inheritable(handle, False)
        try:
            if not _try_lock(handle):
                holder = _read_holder(self.pid)
                who = f"process {holder[0]}" if holder else "another process"
                raise InUse(
                    f"{self.path} is being trained by {who}; wait for its end, stop it, "
                    "or choose another --output-dir"
                )
            about = {"pid": os.getpid(), "started": _started(os.getpid())}
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, json.dumps(about).encode())
            os.fsync(handle)
            yield
        finally:
            os.close(handle)

    def begin(self, argv: Sequence[str]) -> None:
        """From here on the run is under way: how an earlier one ended here no longer counts.

        Keeps what was typed, so that the same can be started again.
        """
        self.begun = True
        self.exit_code.unlink(missing_ok=True)
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        command = [sys.executable, "-m", "finetune.train", *argv]
        write_json(self.command, {"argv": command, "folder": os.getcwd(), "started": when})

    def say(self, text: str) -> None:
        """A line for the terminal and for train.log."""
        print(text, flush=True)
        self.note(text)

    def note(self, text: str) -> None:
        """A line for train.log alone."""
        with self.log_file.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")

    def measure(self, values: dict[str, Any]) -> None:
        """A line for metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def measured(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that a kill cut in two is left out."""
        rows = []
        if self.metrics.is_file():
            for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
        return rows

    def forget_after(self, step: int) -> None:
        """Take the measurements of steps that are done again out of metrics.jsonl."""
        kept = [row for row in self.measured() if row.get("step", 0) <= step]
        passing = self.metrics.with_name(".metrics.jsonl")
        passing.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        passing.replace(self.metrics)

    def refuse(self, code: int, reason: str) -> None:
        """Nothing begins. How an earlier run ended in this folder stays as it is."""
        if self.exit_code.is_file() or any(self.checkpoints.glob("*")):
            print(reason, file=sys.stderr, flush=True)
        else:
            self.end(code, reason)

    def end(self, code: int, reason: str) -> None:
        """How it ended, for whoever looks later. A full disk may refuse even this."""
        line = f"ended with exit code {code}: {reason}"
        try:
            print(line, file=sys.stderr if code else sys.stdout, flush=True)
            self.note(line)
            passing = self.exit_code.with_name(".exit_code")
            passing.write_text(f"{code}\n{reason}\n", encoding="utf-8")
            passing.replace(self.exit_code)
        except OSError as error:
            print(f"{self.exit_code} cannot be written: {error}", file=sys.stderr)


def outcome(folder: Path) -> Outcome:
    """How the run in a folder stands, from its files and the processes of this machine."""
    run = RunFolder(folder)
    if run.exit_code.is_file():
        first, _, reason = run.exit_code.read_text(encoding="utf-8").partition("\n")
        code = int(first) if first.strip().lstrip("-").isdigit() else 1
        return Outcome("failed" if code else "finished", code, reason.strip())
    holder = _read_holder(run.pid)
    if holder is None:
        return Outcome("empty")
    pid, started = holder
    if _is(pid, started):
        return Outcome("running", pid=pid)
    return Outcome(
        "killed", reason="it ended without a word: killed, or the machine ran out of memory"
    )


def _read_holder(file: Path) -> tuple[int, float] | None:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return int(about["pid"]), float(about["started"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _started(pid: int) -> float:
    return float(psutil.Process(pid).create_time())


def _is(pid: int, started: float) -> bool:
    """Whether a process lives and is the one that started then: numbers are used again."""
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return not zombie and abs(process.create_time() - started) < SAME_START
    except psutil.Error:
        return False


def _try_lock(handle: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

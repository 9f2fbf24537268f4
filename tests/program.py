"""Start `python launch.py` as a user does, and end it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Program:
    """A running launch.py; `output` is what it has printed so far."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    data: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wait_until_up(self, seconds: float = 60) -> None:
        self.wait_for(lambda: self.get("/health")[0] == 200, seconds)

    def wait_for_output(self, text: str, seconds: float = 60) -> None:
        self.wait_for(lambda: text in self.output, seconds)

    def wait_for(self, condition, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, f"the program ended: {self.output}"
            try:
                if condition():
                    return
            except (OSError, HTTPException):
                pass
            time.sleep(0.02)
        raise AssertionError(f"waited {seconds} s; output: {self.output}")

    def cpu_seconds(self) -> float:
        """What the process has computed so far; unlike the clock it does not mind company."""
        return sum(psutil.Process(self.process.pid).cpu_times()[:2])

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15) -> int:
        """Send the signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextmanager
def running(folder: Path, *arguments: str, up: bool = True, **environ: str) -> Iterator[Program]:
    """launch.py with a port and a data folder of its own, until the block ends."""
    port, log, data = free_port(), folder / "output.log", folder / "data"
    command = [sys.executable, str(ROOT / "launch.py"), "--port", str(port)]
    command += ["--data-dir", str(data), *arguments]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**clean_environment(), **environ}
        )
    program = Program(process, port, log, data)
    try:
        if up:
            program.wait_until_up()
        yield program
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def clean_environment() -> dict[str, str]:
    """This environment without what would change the program's options."""
    names = ("GLM_", "GRADIO_", "API_KEY", "MODEL_PATH", "TOKENIZER_PATH", "PT_", "QUANTIZATION")
    return {key: value for key, value in os.environ.items() if not key.startswith(names)}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

"""One of our own scripts in a separate process: text in, text out, ended by time or by cancel.

For work on a stranger's file that may loop, grow or crash: `pdf_text.py`, `table_query.py`. The
script gets neither the environment's secrets nor the caller's folder, little more CPU than its
time, and on Linux it ends with this program. It is no sandbox: a program that a visitor wrote
belongs into `tools/sandbox.py`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from glm.cancel import Cancel

CONFINE = Path(__file__).resolve().with_name("confine.py")
_KEPT = ("PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class Ended(Exception):
    """The process gave no answer. `late`: because its time was over or the call was cancelled."""

    def __init__(self, late: bool) -> None:
        super().__init__("late" if late else "failed")
        self.late = late


def answer(
    script: Path, *arguments: str, data: str = "", seconds: float, cancel: Cancel | None = None
) -> str:
    """What the script printed. Raises Ended when it failed, was cancelled or took too long."""
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environment["PYTHONUTF8"] = "1"
    process = subprocess.Popen(
        [*_confined(seconds), sys.executable, "-P", "-B", str(script.resolve()), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tempfile.gettempdir(),
        env=environment,
    )
    with process:
        if cancel is not None:
            cancel.on_set(process.kill)
        try:
            out, _ = process.communicate(data.encode("utf-8", "replace"), timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Ended(late=True) from None
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode != 0:
        raise Ended(late=cancel is not None and cancel.is_set())
    return out.decode("utf-8", "replace")


def _confined(seconds: float) -> list[str]:
    """What takes the limits and becomes the script. Windows has none of them."""
    if os.name == "nt":
        return []
    wanted = {"cpu": math.ceil(seconds) + 1, "parent": os.getpid()}
    return [sys.executable, "-I", "-S", str(CONFINE), json.dumps(wanted)]

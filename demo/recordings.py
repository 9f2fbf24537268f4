"""What tools answered, kept beside the conversations: pictures, tables, durations, and a tape.

The store keeps what the model read. The rest of each answer is a JSON file by the message's id,
in the form of `glm.loop.replay`, so that it can be shown again and played again. A file that is
lost loses a picture or a table, never a word.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from demo.text import Refused
from glm.errors import BadRequest
from glm.loop.replay import read_step, step
from glm.messages import ToolCall, ToolResult

Place = tuple[str, str]  # owner, conversation
LARGEST = 50_000_000  # bytes of a tape that is loaded
_log = logging.getLogger(__name__)


class Recordings:
    """The answers of all conversations; nobody else writes in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, place: Place, node: int, call: ToolCall, result: ToolResult) -> None:
        """Remember the answer that the message `node` holds."""
        row = {**step(call, result), "recorded": result.recorded}
        folder = self._of(place)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / f"{node}.json").write_text(json.dumps(row), encoding="utf-8")
        except OSError as error:
            _log.warning("an answer's pictures and tables could not be kept: %s", error.strerror)

    def found(self, place: Place, nodes: Iterable[int]) -> dict[int, ToolResult]:
        """The kept answers of these messages."""
        folder, out = self._of(place), {}
        for node in nodes:
            row = _read(folder / f"{node}.json")
            if row is not None:
                with suppress(BadRequest):
                    out[node] = _result(row)
        return out

    def tape(self, place: Place) -> list[Mapping[str, Any]]:
        """What a replay plays: a recording that was loaded, else all that tools answered here."""
        folder = self._of(place)
        loaded = _read(folder / "tape.json")
        if isinstance(loaded, list):
            return loaded
        own = sorted((int(p.stem), p) for p in folder.glob("*.json") if p.stem.isdecimal())
        rows = [row for _, path in own if isinstance(row := _read(path), dict)]
        return [row for row in rows if not row.get("recorded")]

    def load(self, place: Place, path: Path | str) -> int:
        """Take a saved recording as the tape; how many answers it holds. Raises Refused."""
        path = Path(path)
        if path.stat().st_size > LARGEST:
            raise Refused("tools.tape_bad")
        rows = _read(path)
        rows = rows.get("steps") if isinstance(rows, dict) else rows
        if not isinstance(rows, list):
            raise Refused("tools.tape_bad")
        try:
            for number, row in enumerate(rows):
                read_step(number, row)
        except BadRequest:
            raise Refused("tools.tape_bad") from None
        folder = self._of(place)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "tape.json").write_text(json.dumps(rows), encoding="utf-8")
        return len(rows)

    def forget(self, place: Place) -> None:
        """The conversation was deleted."""
        shutil.rmtree(self._of(place), ignore_errors=True)

    def _of(self, place: Place) -> Path:
        owner, conversation = place
        name = hashlib.sha256(f"{owner}\0{conversation}".encode(errors="replace")).hexdigest()
        return self._folder / name[:40]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _result(row: Any) -> ToolResult:
    _, result = read_step(0, row)
    recorded = row.get("recorded") if isinstance(row, dict) else ""
    return ToolResult(
        result.text,
        result.error,
        result.images,
        result.table,
        result.seconds,
        recorded if isinstance(recorded, str) else "",
    )

"""Where a loop waits: for its reader, for a person's decision, for its end.

The reader waits in short turns; `close` and `decide` come from any other thread.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from glm.errors import BadRequest
from glm.messages import LoopEvent, ToolCall


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person does with a call that waits, or with an observation that is reviewed.

    "run" runs the call (lets the observation pass), "skip" tells the model that it was not run,
    "write" gives `text` as the observation. `name` and `arguments` replace the call's own. Raises
    BadRequest.
    """

    action: Literal["run", "skip", "write"] = "run"
    name: str | None = None
    arguments: Mapping[str, Any] | None = None
    text: str = ""

    def __post_init__(self) -> None:
        if self.action not in ("run", "skip", "write"):
            raise BadRequest(f"no decision {self.action!r}; allowed: run, skip, write")
        if self.arguments is not None and not isinstance(self.arguments, Mapping):
            raise BadRequest("the arguments of a call must be an object: {...}")

    def applied(self, call: ToolCall) -> ToolCall:
        """The call as decided: the same value when nothing is changed."""
        name = call.name if self.name is None else self.name
        arguments = call.arguments if self.arguments is None else self.arguments
        if name == call.name and _json(arguments) == _json(call.arguments):
            return call
        return ToolCall(name, dict(arguments), call.id)


class Pause:
    """The state that a loop shares with other threads. `patience` is how long its reader waits,
    in seconds or None; `deadline` when all of it ends, in `time.monotonic()` seconds or None."""

    def __init__(self, deadline: float | None) -> None:
        self.patience: float | None = None
        self._deadline = deadline
        self._lock = threading.Lock()
        self._closed = False
        self._end: Callable[[], object] | None = None
        self._waiting = ""  # id of the call that may be decided
        self._decision: Decision | None = None
        self._decided = threading.Event()

    # ---- from any thread -----------------------------------------------------------------

    def close(self) -> None:
        """Stop the loop and end what goes on now."""
        with self._lock:
            self._closed = True
            end, self._end = self._end, None
        if end is not None:
            end()

    def decide(self, call_id: str, decision: Decision) -> bool:
        """Answer the call that waits; False when it is not this one."""
        with self._lock:
            if not call_id or call_id != self._waiting:
                return False
            self._waiting, self._decision = "", decision
        self._decided.set()
        return True

    # ---- from the loop -------------------------------------------------------------------

    def ends(self, end: Callable[[], object]) -> None:
        """`close` does this; at once when it came already."""
        with self._lock:
            closed = self._closed
            self._end = None if closed else end
        if closed:
            end()

    def expect(self, call: ToolCall) -> None:
        """From now on this call may be decided."""
        self._decided.clear()
        with self._lock:
            self._waiting, self._decision = call.id, None
        self.ends(self._decided.set)

    def decision(self) -> Generator[list[LoopEvent], None, Decision | None]:
        """What was decided; None when the loop is stopped before. [] while nobody decides."""
        while not (self._decided.wait(self.left()) or self.stopped):
            yield []
        with self._lock:
            self._waiting = ""
            return self._decision

    @property
    def stopped(self) -> bool:
        """Closed, or past the deadline."""
        return self._closed or self.late

    @property
    def late(self) -> bool:
        return self.rest() <= 0

    def rest(self) -> float:
        """Seconds until the deadline."""
        if self._deadline is None:
            return threading.TIMEOUT_MAX
        return self._deadline - time.monotonic()

    def left(self) -> float | None:
        """How long to wait now: as long as the reader does, and not beyond the deadline."""
        if self._deadline is None:
            return self.patience
        rest = max(0.0, self.rest())
        return rest if self.patience is None else min(self.patience, rest)


def _json(value: Any) -> str:
    """A text that tells values apart which Python takes for equal, such as 1 and True."""
    return json.dumps(value, sort_keys=True, default=repr)

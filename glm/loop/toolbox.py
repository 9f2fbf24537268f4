"""What the loop knows of tools: a toolbox, the way to stop one, and a call in a thread of its own.

A call that reaches its limit is told to end through its `Cancel`, and its result is an error. It
does not promise to end a tool that ignores its `Cancel`: that thread goes on, and nobody waits.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Protocol

from glm.cancel import Cancel
from glm.errors import ToolError
from glm.messages import Policy, ToolCall, ToolResult, ToolSpec

_log = logging.getLogger(__name__)


class Toolbox(Protocol):
    """One conversation's tools."""

    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told of."""

    def policy(self, name: str) -> Policy:
        """What may happen with a call of this name; "deny" for one that is not enabled."""

    def limit(self, name: str) -> float:
        """The seconds after which a call of this name ends by itself; 0 for no such limit."""

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        """Run it. Never raises: what goes wrong is a result with `error`."""


class Running:
    """A call that runs in a thread, with a limit that holds whether or not anybody reads."""

    def __init__(self, toolbox: Toolbox, call: ToolCall, seconds: float) -> None:
        self._toolbox, self._call = toolbox, call
        self._cancel = Cancel()
        self._started = time.monotonic()
        self._result: ToolResult | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        late = f"{call.name} was stopped: it ran longer than {seconds:.3g} s"
        self._limit = threading.Timer(seconds, self.end, [ToolResult(late, error=True)])
        self._limit.daemon = True
        self._limit.start()
        threading.Thread(target=self._work, name="glm-tool", daemon=True).start()

    def wait(self, timeout: float | None) -> ToolResult | None:
        """The result; None when there is none after `timeout` seconds."""
        self._ended.wait(timeout)
        return self._result

    def end(self, result: ToolResult) -> None:
        """Unless there is a result already: this is it, and the tool is told to end."""
        if self._settle(result):
            self._cancel.set()

    def _work(self) -> None:
        try:
            result = self._toolbox.call(self._call, self._cancel)
            if not isinstance(result, ToolResult):
                raise TypeError(f"a toolbox answered {type(result).__name__}")
        except ToolError as error:
            result = ToolResult(str(error), error=True)
        except BaseException as error:  # the border of a tool, which may try to exit, too
            _log.exception("the tool %s failed", self._call.name)
            # The message of a foreign error may name paths and keys: only its kind is told.
            text = f"{self._call.name} failed ({type(error).__name__})"
            result = ToolResult(text, error=True)
        self._settle(result)

    def _settle(self, result: ToolResult) -> bool:
        """Take the first result; False for those after it."""
        seconds = result.seconds or time.monotonic() - self._started
        with self._lock:
            first = self._result is None
            if first:
                self._result = replace(result, seconds=seconds)
        self._limit.cancel()
        self._ended.set()
        return first

"""Record what tools answer, play it again without them, or answer in their place.

    recorder = Recorder(toolbox)                 # recorder.steps is plain JSON
    replay = Replay(toolbox, recorder.steps)     # nothing runs
    mock = Mock(toolbox, {"get_weather": "sunny"})

A call is found again by its name and arguments; equal calls get their answers in order. What a
person wrote or skipped passes by the toolbox and is not recorded: give `step` those of the loop.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from glm.cancel import Cancel
from glm.errors import BadRequest
from glm.loop.toolbox import Toolbox
from glm.messages import Image, Policy, Table, ToolCall, ToolResult, ToolSpec

REPLAY, MOCK = "replay", "mock"  # `ToolResult.recorded` of what did not run


class Recorder:
    """The tools of `inner`; what they answered is in `steps`, in the order they returned."""

    def __init__(self, inner: Toolbox) -> None:
        self._inner = inner
        self.steps: list[dict[str, Any]] = []

    def specs(self) -> tuple[ToolSpec, ...]:
        return self._inner.specs()

    def limit(self, name: str) -> float:
        return self._inner.limit(name)

    def policy(self, name: str) -> Policy:
        return self._inner.policy(name)

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        result = self._inner.call(call, cancel)
        if not cancel.is_set():  # else the loop has given another answer
            self.steps.append(step(call, result))
        return result


class Replay:
    """Recorded answers in place of the tools of `inner`.

    A call that was not recorded is an error; with `missing_runs` it runs. Raises BadRequest for
    steps that are no recording.
    """

    def __init__(
        self, inner: Toolbox, steps: Sequence[Mapping[str, Any]], missing_runs: bool = False
    ) -> None:
        self._inner, self._missing_runs = inner, missing_runs
        self._lock = threading.Lock()
        self._left: defaultdict[str, deque[ToolResult]] = defaultdict(deque)
        for call, result in map(read_step, range(len(steps)), steps):
            self._left[_key(call)].append(result)

    def specs(self) -> tuple[ToolSpec, ...]:
        return self._inner.specs()

    def limit(self, name: str) -> float:
        return self._inner.limit(name)

    def policy(self, name: str) -> Policy:
        """Nobody is asked where nothing can run."""
        policy = self._inner.policy(name)
        return "allow" if policy == "ask" and not self._missing_runs else policy

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        with self._lock:
            left = self._left[_key(call)]
            found = left.popleft() if left else None
        if found is not None:
            return replace(found, recorded=REPLAY)
        if self._missing_runs:
            return self._inner.call(call, cancel)
        text = f"no answer of {call.name} to these arguments was recorded"
        return ToolResult(text, error=True, recorded=REPLAY)


class Mock:
    """Fixed answers by a tool's name; the other tools of `inner` run."""

    def __init__(self, inner: Toolbox, answers: Mapping[str, str]) -> None:
        self._inner, self._answers = inner, dict(answers)

    def specs(self) -> tuple[ToolSpec, ...]:
        return self._inner.specs()

    def limit(self, name: str) -> float:
        return self._inner.limit(name)

    def policy(self, name: str) -> Policy:
        """A tool that is not enabled is not mocked either."""
        policy = self._inner.policy(name)
        return "allow" if policy == "ask" and name in self._answers else policy

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        if call.name in self._answers:
            return ToolResult(self._answers[call.name], recorded=MOCK)
        return self._inner.call(call, cancel)


# ---- a step as JSON ------------------------------------------------------------------------


def step(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    """A call and its answer as JSON values; what JSON does not know becomes its text."""
    table = result.table
    return {
        "name": call.name,
        "arguments": _plain(call.arguments),
        "result": {
            "text": result.text,
            "error": result.error,
            "seconds": result.seconds,
            "images": [
                {"mime": image.mime, "data": base64.b64encode(image.data).decode()}
                for image in result.images
            ],
            "table": table and {"columns": _plain(table.columns), "rows": _plain(table.rows)},
        },
    }


def read_step(number: int, row: Any) -> tuple[ToolCall, ToolResult]:
    """What `step` wrote. Raises BadRequest, which counts the steps from 1."""
    try:
        found = row["result"]
        table = found.get("table")
        result = ToolResult(
            _text(found["text"]),
            error=bool(found.get("error", False)),
            images=tuple(map(_image, found.get("images", ()))),
            table=table and Table(tuple(table["columns"]), tuple(map(tuple, table["rows"]))),
            seconds=float(found.get("seconds", 0.0)),
        )
        return ToolCall(_text(row["name"]), dict(row["arguments"])), result
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadRequest(f"step {number + 1} is no recorded call ({reason})") from None


def _image(row: Any) -> Image:
    return Image(base64.b64decode(row["data"], validate=True), _text(row["mime"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _key(call: ToolCall) -> str:
    return json.dumps([call.name, _plain(call.arguments)], sort_keys=True)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_json), parse_constant=str)


def _json(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)

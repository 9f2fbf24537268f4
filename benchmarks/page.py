"""What a step of a streaming answer costs the server, by length of history, and how fast Stop is.

    python -m benchmarks.page [--turns 0 50 200] [--seconds 4]

The page's own events run in this process over a scripted model: everything of a step counts
(handler, gradio's post-processing, the difference that is sent), the network does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from gradio.route_utils import Request
from gradio.state_holder import SessionState

from demo.app import build
from demo.text import Words
from glm.app import App
from glm.messages import Finish, Message, Sampling, Text, Usage
from glm.store import Store

ANSWER = "A sentence of an answer, **with** some `marks` and a formula $x^2$. "


class Endless:
    """A stream that always has three more words, until it is closed."""

    def __init__(self) -> None:
        self.prompt, self.produced, self.usage = (1,) * 50, [], Usage(50, 0, 0)
        self._closed = threading.Event()
        self._text = ""

    def next(self, timeout: float | None = None) -> list[Any]:
        if self._closed.wait(0.01):
            return [Finish("cancelled", Message("assistant", self._text), self.usage)]
        words = ANSWER[len(self._text) % 40 :][:12]
        self._text = (self._text + words)[-600:]  # as long at every length of history
        self.produced.append(1)
        return [Text(words)] if len(self._text) < 600 else [Text("")]

    def close(self) -> None:
        self._closed.set()


class Scripted:
    """A manager whose model never ends."""

    default = "base"

    def state(self) -> Any:
        info = SimpleNamespace(context=8192, name="scripted", embedded=False, parameters=1)
        return SimpleNamespace(status="ready", info=info, message="", progress=None)

    def models(self) -> list[str]:
        return [self.default]

    def adapters(self) -> list[Any]:
        return []

    def defaults(self) -> Sampling:
        return Sampling()

    def chat(self, *args: Any, **more: Any) -> Endless:
        return Endless()


def conversation(store: Store, turns: int) -> str:
    """A conversation of so many turns."""
    turn = (Message("user", "Question?"), Message("assistant", ANSWER * 5))
    return store.restore("local", [*turn * turns], "long") if turns else store.create("local")


def events(page: Any) -> dict[str, Any]:
    """The page's handlers by name."""
    return {fn.fn.__name__: fn for fn in page.fns.values() if fn.fn is not None}


async def measure(turns: int, seconds: float) -> dict[str, float]:
    """CPU milliseconds per step, from Stop to the last step, and of the drawing after it."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "chats.db") as store:
        chat = conversation(store, turns)
        page = build(App(Scripted(), store, Path(folder)))  # type: ignore[arg-type]
        handlers, state = events(page), SessionState(page)
        request = Request(session_hash="tab", headers={}, query_params={})
        form = [{"text": "Go on", "files": []}, chat, "en", "", 0.8, 0.8, 0, 1, 1024, 1, ""]

        async def call(name: str, inputs: list[Any], iterator: Any = None) -> dict[str, Any]:
            return await page.process_api(
                handlers[name],
                inputs,
                state=state,
                request=request,
                iterator=iterator,
                session_hash="tab",
                event_id=name,
                simple_format=False,
            )

        began = time.process_time()
        await call("on_send", form)
        ask = time.process_time() - began
        answer = await call("on_write", ["en"])
        steps, began, wall = 0, time.process_time(), time.monotonic()
        while time.monotonic() - wall < seconds:
            answer = await call("on_write", ["en"], answer["iterator"])
            steps += 1
        cost = (time.process_time() - began) / steps
        stopped = time.monotonic()
        await call("on_stop", [])
        while answer["is_generating"]:
            answer = await call("on_write", ["en"], answer["iterator"])
        stop = time.monotonic() - stopped
        await call("on_rest", ["en"])
        rest = time.monotonic() - stopped - stop
        page.close()
    return {
        "turns": turns,
        "steps_per_second": steps / seconds,
        "cpu_ms_per_step": 1000 * cost,
        "cpu_ms_to_ask": 1000 * ask,
        "stop_ms": 1000 * stop,
        "rest_ms": 1000 * rest,
    }


def rows(turns: list[int], seconds: float) -> Iterator[dict[str, float]]:
    for count in turns:
        yield asyncio.run(measure(count, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, nargs="+", default=[0, 50, 200])
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    Words()  # the files are there
    print(json.dumps({"machine": platform.platform(), "cpus": os.cpu_count()}))
    found = list(rows(args.turns, args.seconds))
    for row in found:
        print(json.dumps({key: round(value, 2) for key, value in row.items()}))
    first, last = found[0]["cpu_ms_per_step"], found[-1]["cpu_ms_per_step"]
    print(f"CPU per step at {args.turns[-1]} turns / at {args.turns[0]}: {last / first:.2f}")


if __name__ == "__main__":
    main()

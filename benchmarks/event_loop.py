"""How long the event loop of the page waits while a huge malformed answer is read and drawn.

    python -m benchmarks.event_loop              # half a megabyte through both tabs
    python -m benchmarks.event_loop --kilobytes 100

The page's own events run on an event loop of this process over a scripted model that writes as
fast as it is read: a call that never closes, its marks spelled in text, a thought that never ends.
Beside them a task sleeps for 5 ms again and again; the longest it was late because of this program
(the time it computed meanwhile, so that other programs on the machine do not count) is the gap that
another visitor, or /health, would notice. The bar is 100 ms. Appended to
benchmarks/results/event_loop.jsonl. Neither the network nor a browser is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from gradio.route_utils import Request
from gradio.state_holder import SessionState

from benchmarks import page
from benchmarks.engine import git
from demo.app import build
from demo.tool_setup import Setup
from glm.app import App
from glm.chat import EventStream, chat
from glm.dialects import DIALECTS
from glm.dialects.blocks import THINK
from glm.dialects.marks import encode
from glm.dialects.tagged import CALL, KEY, MARKS
from glm.engines.fake import FakeEngine
from glm.messages import Conversation, Sampling
from glm.store import Store
from glm.tokenizer import GLM4_SPECIALS
from glm.tokenizers.ranks import RankTokenizer
from launcher.serve import settle
from tools.workshop import Workshop

RESULTS = Path(__file__).resolve().parent / "results" / "event_loop.jsonl"
BAR = 100.0  # ms
NAP = 0.005
WORDS = ("<tool_call>", "<arg_key>", " sentence", " of", " an", " answer", ", **with**", " $x^2$")
TEXT = "A sentence of an answer, **with** a formula $x^2$.\n"


class Scripted(page.Scripted):
    """A manager whose model writes the given ids, however many."""

    def __init__(self, tokenizer: RankTokenizer) -> None:
        self.dialect: Any = DIALECTS["glm45"](tokenizer)
        self.ids: list[int] = []

    def chat(self, conversation: Conversation, *args: Any, **more: Any) -> EventStream:
        ids, self.ids = self.ids, [self.dialect.tokenizer.eos]  # a tool's error is answered by ""
        engine = FakeEngine([ids], context=10**8)
        return chat(engine, self.dialect, conversation, Sampling(max_tokens=10**8))


def vocabulary(folder: Path) -> RankTokenizer:
    """Single bytes and a few words."""
    tokens = [bytes([byte]) for byte in range(256)]
    for word in (w.encode() for w in WORDS):
        tokens += [word[:n] for n in range(2, len(word) + 1) if word[:n] not in tokens]
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens))
    (folder / "tokenizer.model").write_text("\n".join(lines) + "\n")
    return RankTokenizer(folder / "tokenizer.model", (*GLM4_SPECIALS, *MARKS, "/nothink"))


def answers(tokenizer: RankTokenizer, size: int) -> Iterator[tuple[str, list[int]]]:
    """Ids of about `size` bytes that never close what they open."""
    eos = [tokenizer.eos]
    text = tokenizer.encode(TEXT) * (size // len(TEXT))
    yield "a call without an end", [*encode(tokenizer, [CALL, "f"]), *text, *eos]
    marks = encode(tokenizer, [CALL, "f", *[KEY] * (size // len(KEY))])
    yield "keys without an end", [*marks, *eos]
    spelled = str(CALL) + str(KEY)
    yield "marks in the text", [*tokenizer.encode(spelled) * (size // len(spelled)), *eos]
    yield "a thought without an end", [*encode(tokenizer, [THINK]), *text, *eos]
    yield "a text", [*text, *eos]


class Late:
    """How late a task that naps is, in ms; `work` is the part of it that this program computed."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.work: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Late:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._task
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            began, worked = time.monotonic(), time.process_time()
            await asyncio.sleep(NAP)
            late = 1000 * (time.monotonic() - began - NAP)
            self.found.append(late)
            self.work.append(min(late, 1000 * (time.process_time() - worked)))


class Page:
    """The page's events, called as gradio's routes call them; `sent` are the sizes of the steps."""

    def __init__(self, app: App) -> None:
        self._page = build(app)
        self._state = SessionState(self._page)
        self._events = {f.fn.__qualname__: f for f in self._page.fns.values() if f.fn is not None}
        self.sent: list[int] = []
        self._request = Request(session_hash="tab", headers={}, query_params={})

    async def call(self, name: str, inputs: list[Any]) -> None:
        """One event to its end."""
        iterator, going = None, True
        while going:
            out = await self._page.process_api(
                self._events[name],
                inputs,
                state=self._state,
                request=self._request,
                iterator=iterator,
                session_hash="tab",
                event_id=name,
                simple_format=False,
            )
            going, iterator = out["is_generating"], out["iterator"]
            self.sent.append(len(str(out["data"])))

    async def ask(self, tab: str) -> None:
        """A question in one of the tabs, to its end."""
        asked = {"text": "Go on", "files": []}
        if tab == "chat":
            await self.call("Asking.on_send", [asked, "", "en", "", 0.8, 0.8, 0, 1, 1024, 1, ""])
            await self.call("Asking.on_write", ["en"])
            await self.call("Asking.on_rest", ["en"])
        else:
            await self.call("ToolsTab.on_send", [asked, "", "en", Setup().text()])
            await self.call("ToolsTab.on_run", ["en"])
            await self.call("ToolsTab.on_rest", ["en"])

    def close(self) -> None:
        self._page.close()


async def measure(kilobytes: int) -> dict[str, dict[str, float]]:
    """Name -> the gaps in ms, and how long the answer took."""
    out = {}
    with tempfile.TemporaryDirectory() as name, Store(Path(name) / "chats.db") as store:
        folder = Path(name)
        manager = Scripted(vocabulary(folder))
        tools = Workshop(folder / "tools", my=folder / "my", isolation="off")
        page = Page(App(manager, store, folder, tools=tools))  # type: ignore[arg-type]
        settle()  # as the program does
        for size in (1, kilobytes):  # the first ones warm up
            for kind, ids in answers(manager.dialect.tokenizer, 1000 * size):
                for tab in ("chat", "tools"):
                    manager.ids = ids
                    began = time.monotonic()
                    async with Late() as late:
                        await page.ask(tab)
                    out[f"{tab}: {kind}"] = {
                        "longest": round(max(late.work, default=0.0), 1),
                        "median": round(statistics.median(late.work or [0.0]), 1),
                        "with all other programs": round(max(late.found, default=0.0), 1),
                        "seconds": round(time.monotonic() - began, 1),
                    }
        page.close()
        tools.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kilobytes", type=int, default=500, help="length of an answer")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.kilobytes))
    row = {
        "command": " ".join([Path(sys.executable).name, "-m benchmarks.event_loop", *sys.argv[1:]]),
        "commit": git("rev-parse", "--short", "HEAD"),
        "machine": platform.processor() or platform.machine(),
        "gaps, ms": figures,
        "holds": max(figure["longest"] for figure in figures.values()) < BAR,
    }
    print(json.dumps(row, indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

"""The whole server over a fake workshop and a model that plays with its tools."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.access import Access, Guard
from glm.app import App
from glm.engines.base import Request
from glm.engines.fake import FakeEngine
from glm.manager import Manager
from glm.store import Store
from launcher.options import Options
from launcher.serve import mount_page, uvicorn_config
from tests.browser.scripted_server import Quiet
from tests.fake_workshop import FakeWorkshop
from tests.program import free_port
from tests.scripted_tools import call, dialect, say
from tests.tiny_checkpoint import write_shell

Play = Callable[[str, str], list[int]]  # (the last turn's text, the whole prompt) -> ids


def model(said: str, prompt: str) -> list[int]:
    """Weather by the tool, sums by the other, the rest in words."""
    if "sunny" in said or "temperature" in said:
        city = said.split('"city": "')[1].split('"')[0]
        return say(f"It is **sunny** in {city}, 21 degrees.")
    if "= 42" in said:
        return say(f"The result is {said.strip()}.")
    if "weather" in said:
        return call("get_weather", "city='Paris'", "I look up the weather.")
    if "*" in said:
        return call("calculator", "expression='12 * 8'", "I compute it.")
    if "sales" in said:
        return call("query_table", "sql='SELECT city, amount FROM sales'")
    if "price" in said:
        return call("ticket_price", "x=12")
    return say(f"I read: {said.strip()[:200]}")


class Player:
    """Opens an engine that answers with `play`."""

    def __init__(self, play: Play, pause: float) -> None:
        self._play, self._pause = play, pause

    def __call__(self, info: Any, how: Any) -> FakeEngine:
        return FakeEngine(self._answer, context=8192, pause=self._pause)

    def _answer(self, request: Request) -> list[int]:
        pieces = dialect().xray(request.prompt)
        text = "".join(piece.text for piece in pieces)
        tail = dialect().tokenizer
        last: list[int] = []
        for piece in reversed(pieces[:-1]):
            if piece.special and last:
                break
            if not piece.special:
                last.insert(0, piece.id)
        return self._play(tail.decode(last), text)


@contextmanager
def serving(folder: Path, play: Play = model, pause: float = 0.002) -> Iterator[tuple[str, Any]]:
    """The address and the workshop, until the block ends."""
    port, shop = free_port(), FakeWorkshop(folder / "files")
    manager = Manager(write_shell(folder / "model"), opener=Player(play, pause))
    app = App(manager, Store(folder / "chats.db"), folder, tools=shop)
    guarded = Guard(mount_page(app, Options(port=port)), Access(secret=b"s" * 32, port=port))
    config = uvicorn_config(guarded)
    config.port = port
    server, up = Quiet(config), threading.Event()
    server.when_up = up.set
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    try:
        assert up.wait(120)
        manager.start()
        assert manager.wait(120).status == "ready"
        yield f"http://127.0.0.1:{port}/", shop
    finally:
        server.should_exit = True
        thread.join(20)
        manager.close()
        app.store.close()

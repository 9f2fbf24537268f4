"""The whole server in this process, over a model that says what a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from api.access import Access, Guard
from glm.app import App
from glm.chat import EventStream
from glm.manager import Manager
from glm.store import Store
from launcher.options import Options
from launcher.serve import PageFirst, mount_page, uvicorn_config
from tests.page_desk import Script, Scripted
from tests.program import free_port
from tests.tiny_checkpoint import write_shell


class Quiet(PageFirst):
    """Leaves the signals of the test process alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Noted:
    """Knows whether an answer's stream was closed."""

    def __init__(self, stream: EventStream) -> None:
        self.closed, close = threading.Event(), stream.close

        def noted() -> None:
            self.closed.set()
            close()

        stream.close = noted  # type: ignore[method-assign]


def noting(chat: Callable[..., EventStream], streams: list[Noted]) -> Callable[..., EventStream]:
    """`Manager.chat` that lists its answers."""

    def noted(*args: Any, **more: Any) -> EventStream:
        stream = chat(*args, **more)
        streams.append(Noted(stream))
        return stream

    return noted


@contextmanager
def serving(folder: Path, script: Script, **about) -> Iterator[tuple[str, list[Noted]]]:
    """The address, and the answers that were begun, until the block ends."""
    port = free_port()
    opener = Scripted(script, **about)
    manager = Manager(write_shell(folder / "model"), opener=opener)
    app = App(manager, Store(folder / "chats.db"), folder)
    streams: list[Noted] = []
    manager.chat = noting(manager.chat, streams)  # type: ignore[method-assign]
    guarded = Guard(mount_page(app, Options(port=port)), Access(secret=b"s" * 32, port=port))
    config: uvicorn.Config = uvicorn_config(guarded)
    config.port = port
    server, up = Quiet(config), threading.Event()
    server.when_up = up.set
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    try:
        assert up.wait(60)
        manager.start()
        assert manager.wait(60).status == "ready"
        yield f"http://127.0.0.1:{port}/", streams
    finally:
        server.should_exit = True
        thread.join(20)
        manager.close()
        app.store.close()

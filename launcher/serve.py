"""Compose the program and run it: model, store, page, server, login. The environment is ready.

Page first: the server answers before the model's libraries are even imported. A stop signal
ends open answers within three seconds and leaves no process behind.
"""

from __future__ import annotations

import errno
import gc
import http.client
import inspect
import os
import secrets
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import uvicorn

from api.access import Access, Guard
from api.accounts import Account, hash_password, read_accounts
from api.limits import HEADER_BYTES, UPLOAD_BYTES
from api.server import create
from api.sessions import load_secret
from glm.app import App
from glm.errors import GlmError
from glm.identity import LOCAL
from launcher.options import LOOPBACK, Options
from launcher.problems import BadOption, NotWritable, PortInUse, Problem

GRACE = 3  # seconds an open answer gets when the program is told to stop
CLOSING = 4  # seconds for everything else
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    # Threads that wait actively would take the cores from the page.
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
}


def serve(options: Options) -> int:
    """Open the page and stay until a signal. Raises a Problem when it cannot start."""
    os.environ.update(QUIET)
    data = data_folder(options)
    os.environ.setdefault("GRADIO_TEMP_DIR", str(data / "uploads"))
    listener = bind(options.address, options.port)
    password = "" if options.auth or not options.public else secrets.token_urlsafe(12)
    access = make_access(options, data, password)
    app = make_app(options, data)
    server = PageFirst(uvicorn_config(Guard(mount_page(app, options), access)))
    server.when_up = lambda: _after_start(options, app, access, password, server)
    try:
        server.run_until_signal(listener)
    finally:
        _stop(app)
    _leave(0)


def data_folder(options: Options) -> Path:
    """The folder for everything the program keeps; a new one is its owner's alone."""
    data = Path(options.data_dir).expanduser().resolve()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        trial = data / f".trial-{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise NotWritable(
            f"cannot write the data folder {data} ({error.strerror}); "
            "choose another with --data-dir"
        ) from error
    return data


def bind(address: str, port: int) -> socket.socket:
    """A socket that listens there. Raises PortInUse or BadOption."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise BadOption(f"--host {address!r} is no address of this machine") from error
    listener = socket.socket(family, kind, proto)
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)  # Windows lets two share a port
    listener.setsockopt(socket.SOL_SOCKET, exclusive or socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", -1)):
            raise PortInUse(
                f"port {port} on {address} is in use; stop the program there, "
                f"or start this one with --port {port + 1 if port < 65535 else 7861}"
            ) from error
        raise BadOption(f"cannot listen on {address} port {port}: {error.strerror}") from error
    return listener


def make_access(options: Options, data: Path, password: str) -> Access:
    """The rules of this start; `password` is the operator's when one was made up."""
    try:
        accounts = read_accounts(options.auth)
    except (ValueError, OSError) as error:
        raise BadOption(str(error)) from error
    if password:
        accounts = [Account("operator", hash_password(password), operator=True)]
    names = [] if options.address in (*LOOPBACK, "0.0.0.0", "::") else [options.address]
    return Access(
        secret=load_secret(data),
        accounts=accounts,
        keys=options.api_key,
        names=[*names, *options.allow_host],
        beyond_loopback=options.public,
        root_path=options.root_path,
        lang=options.lang,
        port=options.port,
    )


def make_app(options: Options, data: Path) -> App:
    """The model's manager (not started), the store and the tools."""
    from glm.manager import Manager
    from glm.opening import Opening
    from glm.store import Store
    from tools.workshop import Workshop

    how = Opening(options.device, options.dtype, options.bits, options.tokenizer or None)
    manager = Manager(options.model or None, how, adapter=options.adapter or None, data=data)
    try:
        store = Store(data / "workbench.db")
    except GlmError as error:
        raise Problem(str(error)) from error
    uploads = Path(os.environ.get("GRADIO_TEMP_DIR", data / "uploads"))
    tools = Workshop(data, uploads=uploads, isolation=options.interpreter)
    return App(manager, store, data, options.lang, options.public, tools)


def mount_page(app: App, options: Options) -> Any:
    """The server's routes with the page behind them."""
    with without_editor_stubs():
        import gradio
    from demo.app import build, mount_options

    server = create(app)
    options_of_page = {
        "max_file_size": UPLOAD_BYTES,
        "show_error": False,  # what a handler wants to say it says as gr.Error
        "run_history": False,  # else questions and answers stay in the browser's storage
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "footer_links": [],
        **mount_options(),
    }
    return gradio.mount_gradio_app(
        server,
        build(app),
        path="/",
        server_name=options.address,
        server_port=options.port,
        root_path=options.root_path or None,
        **options_of_page,
    )


@contextmanager
def without_editor_stubs() -> Iterator[None]:
    """Keep Gradio from parsing its own sources at import, to write .pyi files for editors.

    That is half of its import time (4.2 s became 2.2 s on two cores), and two programs that
    start at once write the same files.
    """
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no stub wanted")
        return original(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = original


def uvicorn_config(app: Any) -> uvicorn.Config:
    """How the server runs; the sizes are limits for strangers."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_graceful_shutdown=GRACE,
    )


class PageFirst(uvicorn.Server):
    """Calls `when_up` in a thread as soon as it answers; a signal ends `run_until_signal`."""

    when_up: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            threading.Thread(target=self.when_up, name="after-start", daemon=True).start()

    def run_until_signal(self, listener: socket.socket) -> None:
        def stop(signum: int, frame: object) -> None:  # uvicorn raises the signal once more
            self.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        self.run([listener])


def _after_start(
    options: Options, app: App, access: Access, password: str, server: PageFirst
) -> None:
    """What may take time: first page view, words for the terminal, model, browser, public link."""
    host = "127.0.0.1" if options.address in ("0.0.0.0", "::") else options.address
    url = f"http://{f'[{host}]' if ':' in host else host}:{options.port}{access.prefix}"
    _view_once(host, options.port)  # the import of torch would make the first visitor wait
    print(f"GLM Workbench is at {url}", flush=True)
    if password:
        print(f"Log in as operator with the password {password} (shown only now)", flush=True)
    settle()
    app.manager.start()
    threading.Thread(target=_report_model, args=(app, server), name="report", daemon=True).start()
    if options.open or (options.open is None and sys.stdout.isatty() and _has_desktop()):
        webbrowser.open(url)
    if options.share:
        from launcher.share import share

        share(host, options.port, access.origins, app.data_dir)
    _first_look(app, server, by_choice=options.interpreter == "off")


def settle() -> None:
    """What is there now stays, so no garbage collection need ever look at it again.

    A full one over all of the page's objects would hold everybody up for a tenth of a second. A
    model is not among them: one that is replaced must go.
    """
    gc.collect()
    gc.freeze()


def _first_look(app: App, server: PageFirst, by_choice: bool) -> None:
    """Try the isolation and read the operator's own tools, so that no visitor waits for that.

    `by_choice`: the operator turned the interpreter off, and knows.
    """
    try:
        kind = app.tools.isolation()
        cards = app.tools.cards(LOCAL)
    except GlmError:  # the program is ending
        return
    if kind == "none":
        print("Code of tools runs without isolation", file=sys.stderr, flush=True)
    for card in cards if not server.should_exit else ():
        if card.origin != "interpreter" and not card.available:
            print(card.reason, file=sys.stderr, flush=True)
        elif not card.available and not by_choice:
            print(f"The Python interpreter is off. {card.reason}", file=sys.stderr, flush=True)


def _view_once(host: str, port: int) -> None:
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", "/", headers={"host": "localhost", "accept": "*/*"})
        connection.getresponse().read()
        connection.close()


def _report_model(app: App, server: PageFirst) -> None:
    began = time.monotonic()
    state = app.manager.wait()
    if state.status == "ready" and state.info:
        print(f"{state.info.name} is ready ({time.monotonic() - began:.1f} s)", flush=True)
    elif not server.should_exit:
        print(f"The model did not open: {state.message}", file=sys.stderr, flush=True)


def _has_desktop() -> bool:
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _stop(app: App) -> None:
    """Close everything, within seconds."""
    if "launcher.share" in sys.modules:
        sys.modules["launcher.share"].close()
    closers = [
        threading.Thread(target=close, args=(app,), daemon=True) for close in (_close, _close_tools)
    ]
    for closer in closers:
        closer.start()
    ends = time.monotonic() + CLOSING
    for closer in closers:
        closer.join(max(0.0, ends - time.monotonic()))


def _leave(code: int) -> NoReturn:
    """End without waiting for threads: one in the middle of torch would hold or crash the exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _close(app: App) -> None:
    app.manager.close()
    app.store.close()


def _close_tools(app: App) -> None:
    """Interpreters and MCP servers; what does not end in time ends when this process is gone."""
    app.tools.close()

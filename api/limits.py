"""How much a request may carry. A body is counted as it streams in, so nothing is believed.

Header size is the HTTP parser's business (`HEADER_BYTES` goes to uvicorn).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER_BYTES = 64 * 1024
BODY_BYTES = 16 * 1024**2
UPLOAD_BYTES = 100 * 1024**2
UPLOAD_PATHS = ("/gradio_api/upload",)


def limit_of(path: str) -> int:
    """The largest body for a path, in bytes."""
    return UPLOAD_BYTES if path.startswith(UPLOAD_PATHS) else BODY_BYTES


def error(status: int, sentence: str, kind: str, **headers: str) -> JSONResponse:
    """An error in the form that OpenAI clients read."""
    body = {"error": {"message": sentence, "type": kind, "param": None, "code": kind}}
    return JSONResponse(body, status, headers={k.replace("_", "-"): v for k, v in headers.items()})


class BodyLimit:
    """Runs an application with a counted body; answers 413 itself when it grows too large."""

    def __init__(self, app: Asgi, limit: int) -> None:
        self._app, self._limit = app, limit
        self._seen = 0
        self._started = self._refused = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > self._limit):
                await self._refuse(scope, receive, send)
                return

        async def counted() -> Message:
            message = await receive()
            self._seen += len(message.get("body", b""))
            if self._seen <= self._limit:
                return message
            if not self._started and not self._refused:
                await self._refuse(scope, receive, send)
            self._refused = True
            return {"type": "http.disconnect"}

        async def muted(message: Message) -> None:
            self._started = True
            if not self._refused:
                await send(message)

        try:
            await self._app(scope, counted, muted)
        except Exception:
            if not self._refused:  # else the application only noticed that its client is gone
                raise

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refused = True
        sentence = f"the request is larger than {self._limit // 1024**2} MB"
        await error(413, sentence, "request_too_large", connection="close")(scope, receive, send)

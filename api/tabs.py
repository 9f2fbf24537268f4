"""Which visitor a Gradio session belongs to.

Gradio knows a tab by a `session_hash` that the browser makes up, and gives its state and events
to whoever names it. The first visitor that uses one owns it; for others it does not exist.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from urllib.parse import parse_qsl

from api.limits import Message, Receive, Scope

PREFIX = "/gradio_api/"
IN_PATH = re.compile(r"/gradio_api/(?:heartbeat|stream)/([^/]+)")
JSON_BYTES = 8 * 1024**2
REMEMBERED = 20_000


class BadBody(ValueError):
    """The body is not the JSON that Gradio's page sends."""


class Tabs:
    """Owners of sessions, the ones used last."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, str] = OrderedDict()

    def allows(self, session: str, owner: str) -> bool:
        """Whether `owner` may use this session; an unknown one becomes theirs."""
        known = self._owners.setdefault(session, owner)
        self._owners.move_to_end(session)
        while len(self._owners) > REMEMBERED:
            self._owners.popitem(last=False)
        return known == owner


def named_without_body(scope: Scope) -> list[str]:
    """Sessions named in the path or the query."""
    path = scope["path"]
    if not path.startswith(PREFIX):
        return []
    found = [
        value
        for key, value in parse_qsl(scope["query_string"].decode("latin-1"))
        if key == "session_hash"
    ]
    match = IN_PATH.match(path)
    return found + ([match[1]] if match else [])


def may_name_in_body(scope: Scope) -> bool:
    """Whether the body has to be read to know (uploads are not JSON)."""
    return (
        scope["method"] == "POST"
        and scope["path"].startswith(PREFIX)
        and not scope["path"].startswith(PREFIX + "upload")
    )


async def read_body(receive: Receive) -> tuple[list[str], Receive]:
    """The sessions a JSON body names, and a `receive` that plays the body again.

    Raises BadBody.
    """
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return [], receive
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > JSON_BYTES:
            raise BadBody(f"the request is larger than {JSON_BYTES // 1024**2} MB")
    played = False

    async def replay() -> Message:
        nonlocal played
        if played:
            return await receive()
        played = True
        return {"type": "http.request", "body": body, "more_body": False}

    return _sessions(body), replay


def _sessions(body: bytes) -> list[str]:
    if not body.strip():
        return []
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadBody("the body is not JSON") from error
    session = found.get("session_hash") if isinstance(found, dict) else None
    return [session] if isinstance(session, str) else []

"""The login page: one self-contained form, its check, and a brake on guessing.

Changes are refused by origin before they come here (`api/access.py`), so another site can
neither log a visitor in nor out.
"""

from __future__ import annotations

import asyncio
import html
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from api.accounts import Account, Accounts

HERE = Path(__file__).resolve().parent
TEXTS = HERE.parent / "assets" / "i18n" / "login.json"
FORM_BYTES = 8 * 1024
FREE_TRIES, LONGEST_WAIT, REMEMBERED = 5, 300.0, 10_000


class Brake:
    """After some failures from one address for one name, each next try waits twice as long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def wait(self, who: tuple[str, str]) -> float:
        """Seconds until `who` may try again."""
        count, last = self._failures.get(who, (0, 0.0))
        if count < FREE_TRIES:
            return 0.0
        pause = min(2.0 ** (count - FREE_TRIES), LONGEST_WAIT)
        return max(0.0, last + pause - self._clock())

    def failed(self, who: tuple[str, str]) -> None:
        count, _ = self._failures.pop(who, (0, 0.0))
        self._failures[who] = (count + 1, self._clock())
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def passed(self, who: tuple[str, str]) -> None:
        self._failures.pop(who, None)


class Login:
    """The form and its check. `lang` is zh, en or auto (the browser's)."""

    def __init__(self, accounts: Accounts, lang: str = "auto", brake: Brake | None = None) -> None:
        self._accounts, self._lang = accounts, lang
        self._brake = brake or Brake()
        self._two_at_a_time = asyncio.Semaphore(2)  # a check takes 16 MB

    def page(self, request: Request, action: str) -> Response:
        """The empty form."""
        return self._form(request, action, request.query_params.get("next", "/"))

    async def submit(self, request: Request, action: str) -> tuple[Account, str] | Response:
        """The account and where to go next, or the form again with what was wrong."""
        fields = await _fields(request)
        name, target = fields.get("user", "").strip(), safe_target(fields.get("next", "/"))
        who = (request.client.host if request.client else "", name)
        wait = self._brake.wait(who)
        if wait > 0:
            return self._form(request, action, target, name=name, wait=wait)
        async with self._two_at_a_time:
            check = self._accounts.check
            account = await run_in_threadpool(check, name, fields.get("password", ""))
        if account is None:
            self._brake.failed(who)
            return self._form(request, action, target, name=name, wrong=True)
        self._brake.passed(who)
        return account, target

    def _form(self, request: Request, action: str, target: str, **about: Any) -> Response:
        words = texts()[self._language(request)]
        problem, status, headers = "", 200, {"cache-control": "no-store"}
        if about.get("wrong"):
            problem, status = words["wrong"], 401
        if about.get("wait"):
            seconds = math.ceil(about["wait"])
            problem, status = words["wait"].format(seconds=seconds), 429
            headers["retry-after"] = str(seconds)
        name = about.get("name", "")
        values = {**words, "action": action, "next": safe_target(target), "name": name}
        safe = {key: html.escape(value, quote=True) for key, value in values.items()}
        safe["problem"] = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
        safe["focus_user"], safe["focus_password"] = (
            ("", "autofocus") if name else ("autofocus", "")
        )
        return HTMLResponse(template().substitute(safe), status, headers=headers)

    def _language(self, request: Request) -> str:
        if self._lang in texts():
            return self._lang
        return preferred(request.headers.get("accept-language", ""))


def preferred(accept_language: str) -> str:
    """`zh` when a browser names Chinese before English, else `en`."""
    for part in accept_language.lower().split(","):
        tag = part.strip()[:2]
        if tag in ("zh", "en"):
            return tag
    return "en"


def safe_target(target: str) -> str:
    """A path on this server; anything that could lead elsewhere becomes `/`."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and target.isprintable() and "\\" not in target else "/"


async def _fields(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return {}
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        return {}
    return {key: values[0] for key, values in found.items()}


@cache
def texts() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(TEXTS.read_text(encoding="utf-8"))
    return found


@cache
def template() -> Template:
    return Template((HERE / "login.html").read_text(encoding="utf-8"))

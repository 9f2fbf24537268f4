"""Signed cookies: who is logged in, and which browser this is.

A login token carries name, time and a random number, signed with the program's secret and the
account's hash, so a changed password ends old logins. Nothing is kept on the server but the
tokens that were logged out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from api.accounts import Account, Accounts
from glm.identity import User

LOGIN_SECONDS = 7 * 24 * 3600
VISITOR_SECONDS = 400 * 24 * 3600  # the longest a browser keeps a cookie


def load_secret(folder: Path) -> bytes:
    """The program's secret, made at the first start; readable by its owner only."""
    path = folder / "secret"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = path.read_bytes()
        if len(secret) >= 32:
            return secret
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC, 0o600)  # torn by a crash
    secret = secrets.token_bytes(32)
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
    return secret


class Sessions:
    """Makes and reads the tokens of one program."""

    def __init__(
        self, secret: bytes, accounts: Accounts | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret, self._accounts, self._clock = secret, accounts, clock
        self._ended: dict[str, float] = {}  # logged-out tokens, until they would have expired

    def login(self, account: Account) -> str:
        """A token for a cookie."""
        text = f"{account.name}:{int(self._clock())}:{secrets.token_urlsafe(12)}"
        return self._sign(text, f"login:{account.hash}")

    def user(self, token: str) -> User | None:
        """Who a login token belongs to; None when it is forged, too old or logged out."""
        text = _text(token)
        name, _, rest = text.partition(":")
        account = self._accounts.get(name) if self._accounts else None
        if account is None or not self._valid(token, text, f"login:{account.hash}"):
            return None
        issued = int(rest.partition(":")[0])
        if self._clock() - issued > LOGIN_SECONDS or token in self._ended:
            return None
        return User(id=f"login:{name}", name=name, operator=account.operator)

    def end(self, token: str) -> None:
        """Log a token out."""
        if self.user(token):
            now = self._clock()
            self._ended = {key: until for key, until in self._ended.items() if until > now}
            self._ended[token] = now + LOGIN_SECONDS

    def new_browser(self) -> str:
        """A token for a browser that has none."""
        return self._sign(secrets.token_urlsafe(16), "browser")

    def browser(self, token: str) -> User | None:
        """The person at a loopback page, known by the browser's cookie."""
        text = _text(token)
        if not text or not self._valid(token, text, "browser"):
            return None
        return User(id=f"browser:{text}", name="local", operator=True)

    def _sign(self, text: str, purpose: str) -> str:
        mark = hmac.new(self._secret, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()
        return f"{_encode(text.encode())}.{_encode(mark)}"

    def _valid(self, token: str, text: str, purpose: str) -> bool:
        return hmac.compare_digest(token.encode(), self._sign(text, purpose).encode())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text(token: str) -> str:
    """What a token says, not yet believed; empty when it is no token."""
    head = token.partition(".")[0]
    try:
        return base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)).decode()
    except ValueError:
        return ""

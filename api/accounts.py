"""Accounts of `--auth`: names and scrypt hashes; the first one is the operator.

Standard library only. Passwords never leave this module; a hash looks like
`scrypt$14$8$1$<salt>$<key>` (log2 n, r, p, then base64).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

COST, BLOCK, LANES = 14, 8, 1  # 16 MB and about 50 ms a guess
HASH = re.compile(r"scrypt\$(\d{1,2})\$(\d{1,2})\$(\d{1,2})\$([^$]+)\$([^$]+)")
NAME = re.compile(r"[\w.@+-]{1,64}")


@dataclass(frozen=True, slots=True)
class Account:
    """A login."""

    name: str
    hash: str
    operator: bool = False


class Accounts:
    """The accounts of one program, in the order they were given."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._by_name = {account.name: account for account in accounts}

    def get(self, name: str) -> Account | None:
        return self._by_name.get(name)

    def check(self, name: str, password: str) -> Account | None:
        """The account when the password is right. Takes about 50 ms; call it in a thread."""
        account = self._by_name.get(name)
        right = password_matches(password, account.hash if account else _nobody())
        return account if right else None


@cache
def _nobody() -> str:
    """The hash an unknown name is checked against, so that it costs the time of a known one."""
    return hash_password(secrets.token_urlsafe())


def read_accounts(values: Iterable[str]) -> list[Account]:
    """Accounts from `USER:PASSWORD`, `USER:HASH` or the path of a file with one of these a line.

    Raises ValueError with a sentence that never repeats a password.
    """
    found: list[Account] = []
    for value in values:
        path = Path(value)
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not kept:
                raise ValueError(f"the accounts file {path} is empty; write USER:HASH lines")
            found += [_account(line, f"a line of {path}") for line in kept]
        else:
            found.append(_account(value, "--auth"))
    names = [account.name for account in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"--auth names {', '.join(sorted(twice))} more than once")
    return [Account(a.name, a.hash, operator=index == 0) for index, a in enumerate(found)]


def _account(text: str, where: str) -> Account:
    name, colon, secret = text.partition(":")
    if not colon or not secret:
        raise ValueError(f"{where} must be USER:PASSWORD, USER:HASH or an existing file")
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{where} has a user name of other signs than letters, digits and . @ + - _"
        )
    return Account(name, secret if HASH.fullmatch(secret) else hash_password(secret))


def hash_password(password: str) -> str:
    """A salted scrypt hash of `password`."""
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, (COST, BLOCK, LANES))
    parts = [base64.b64encode(part).decode() for part in (salt, key)]
    return f"scrypt${COST}${BLOCK}${LANES}${parts[0]}${parts[1]}"


def password_matches(password: str, stored: str) -> bool:
    """Whether `password` made the hash `stored`, compared in constant time."""
    match = HASH.fullmatch(stored)
    if not match:
        return False
    cost, block, lanes = (int(match[index]) for index in (1, 2, 3))
    try:
        salt, wanted = (base64.b64decode(match[index], validate=True) for index in (4, 5))
        key = _scrypt(password, salt, (cost, block, lanes))
    except ValueError:
        return False
    return hmac.compare_digest(key, wanted)


def _scrypt(password: str, salt: bytes, work: tuple[int, int, int]) -> bytes:
    cost, block, lanes = work
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=1 << cost,
        r=block,
        p=lanes,
        maxmem=256 * block * (1 << cost),
        dklen=32,
    )

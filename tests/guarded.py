"""A small application behind the guard, and people who log in to it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.testclient import TestClient

from api.access import Access, Guard
from api.accounts import Account, hash_password

SECRET = b"s" * 32
ACCOUNTS = (
    Account("ann", hash_password("correct horse"), operator=True),
    Account("bob", hash_password("battery staple")),
)
HTML = {"accept": "text/html"}
HERE = "http://127.0.0.1:7860"


def echo() -> FastAPI:
    """An application that says who it was asked by, and how much it was sent."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def answer(path: str, request: Request):
        user = request.scope["user"]
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(f"<p>{user.id}</p>")
        seen = {"id": user.id, "name": user.name, "operator": user.operator}
        return {**seen, "size": size, "path": "/" + path}

    return app


def client(**about) -> TestClient:
    guard = Guard(echo(), Access(secret=SECRET, **about))
    return TestClient(guard, base_url=HERE, follow_redirects=False)


def open_client() -> TestClient:
    return client()


def login_client(**about) -> TestClient:
    return client(**{"accounts": ACCOUNTS, "beyond_loopback": True, **about})


def log_in(browser: TestClient, user: str = "ann", password: str = "correct horse", **more):
    form = {"user": user, "password": password, **more}
    return browser.post("/login", data=form, headers={"origin": HERE, **HTML})

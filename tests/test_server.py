"""The whole server, page included: every route behind the guard, health, limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from api.access import Access, Guard
from api.accounts import Account, hash_password
from api.server import create
from glm.app import App
from glm.engines.fake import FakeEngine
from glm.manager import Manager
from glm.store import Store
from launcher.options import Options
from launcher.serve import mount_page

SECRET = b"s" * 32
HERE = "http://127.0.0.1:7860"
ACCOUNTS = [Account("ann", hash_password("correct horse"), operator=True)]
OPEN = {"/health", "/login", "/logout"}  # what a stranger may ask for
FILLING = {"path": "x", "session_hash": "abc", "event_id": "abc", "api_name": "chat"}


def make_app(folder: Path) -> App:
    return App(Manager(opener=lambda *_: FakeEngine([])), Store(folder / "workbench.db"), folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[FastAPI]:
    """The routes and the page, as the launcher composes them."""
    folder = tmp_path_factory.mktemp("server")
    app = make_app(folder)
    yield mount_page(app, Options(data_dir=str(folder)))
    app.store.close()


def every_route(app: FastAPI | APIRouter) -> list[tuple[str, str]]:
    """Method and path of each route, those of mounted applications included."""
    found = []
    for route in app.routes:
        if hasattr(route, "original_router"):  # FastAPI's include_router
            found += every_route(route.original_router)
        elif isinstance(route, Mount):
            inner = every_route(route.app) if hasattr(route.app, "routes") else []
            found += [(method, route.path + path) for method, path in inner]
            found.append(("GET", f"{route.path}/anything"))
        elif isinstance(route, (APIRoute, Route)):
            path = route.path
            for name in route.param_convertors:
                kept = FILLING.get(name, "x")
                path = path.replace(f"{{{name}}}", kept).replace(f"{{{name}:path}}", kept)
            found += [(method, path) for method in sorted(route.methods or {"GET"})]
    return found


def refusals(app: FastAPI, headers: dict[str, str]) -> dict[tuple[str, str], int]:
    """What each route answers to a stranger who sends these headers."""
    access = Access(secret=SECRET, accounts=ACCOUNTS, keys=["k"], beyond_loopback=True)
    client = TestClient(Guard(app, access), base_url=HERE, follow_redirects=False)
    return {
        (method, path): client.request(method, path, headers=headers).status_code
        for method, path in every_route(app)
        if path not in OPEN
    }


def test_the_table_of_routes_is_not_empty(whole):
    paths = {path for _, path in every_route(whole)}
    assert {"/health", "/gradio_api/queue/join", "/gradio_api/upload", "/config"} <= paths
    assert len(paths) > 60


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_a_stranger_is_refused_on_every_route(whole, headers):
    answers = refusals(whole, headers)
    assert {key: code for key, code in answers.items() if code != 401} == {}


def test_a_browser_without_a_login_is_led_to_it_from_every_page(whole):
    answers = refusals(whole, {"accept": "text/html"})
    assert {code for (method, _), code in answers.items() if method == "GET"} == {303}


def test_health_says_whether_a_model_answers_and_nothing_else(tmp_path):
    app = make_app(tmp_path)
    with TestClient(Guard(create(app), Access(secret=SECRET)), base_url=HERE) as client:
        assert client.get("/health").json() == {
            "status": "ok", "model": "loading", "progress": None,
        }  # fmt: skip
    app.store.close()


@pytest.fixture
def page(whole) -> Iterator[TestClient]:
    with TestClient(Guard(whole, Access(secret=SECRET)), base_url=HERE) as client:
        yield client


def test_the_page_answers(page):
    answer = page.get("/", headers={"accept": "text/html"})
    assert answer.status_code == 200 and "gradio" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "{data}/workbench.db", "{data}/secret", "{data}/../x", "launch.py", "%2e%2e/x"],
)
def test_no_file_but_the_pages_own_is_served(page, whole, path, tmp_path_factory):
    data = whole.state.app.data_dir
    answer = page.get(f"/gradio_api/file={path.format(data=data)}")
    assert answer.status_code in (403, 404)


def test_an_upload_over_the_limit_is_refused(page):
    huge = {"content-length": str(200 * 1024**2), "content-type": "multipart/form-data; boundary=x"}
    assert page.post("/gradio_api/upload", content=iter([b""]), headers=huge).status_code == 413

"""What a visitor over a share login may not do with tools, attacked through the real guard."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from api.access import Access, Guard
from api.server import create
from glm.app import App
from glm.cancel import Cancel
from glm.engines.fake import FakeEngine
from glm.errors import GlmError
from glm.manager import Manager
from glm.messages import ToolCall
from glm.store import Store
from tests.guarded import ACCOUNTS, HERE, SECRET, log_in
from tests.mcp_desk import PLAIN
from tools.workshop import Workshop

CANARY = "canary-77ab"
READ = 'def steal(path: str) -> str:\n    """Read."""\n    return open(path).read()\n'
LIST = 'def look(path: str) -> list:\n    """List."""\n    import os\n    return os.listdir(path)\n'
ENVIRONMENT = (
    'def show() -> str:\n    """Show."""\n    import os\n    return str(dict(os.environ))\n'
)
REACH = (
    'def reach(port: int) -> str:\n    """Reach."""\n    import socket\n'
    '    socket.create_connection(("127.0.0.1", port), 5)\n    return "there"\n'
)
SCHEDULE = f'open({CANARY!r}, \'w\')\ndef plain() -> str:\n    """Do."""\n    return \'\'\n'


class Two:
    """A server behind a login, with the operator `ann` and the visitor `bob`.

    `/act` does what the page does for whoever the guard says it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shop = Workshop(folder / "data", my=folder / "my")
        self.store = Store(folder / "chats.db")
        manager = Manager(opener=lambda *_: FakeEngine([]))
        server = create(App(manager, self.store, folder / "data", public=True, tools=self.shop))
        server.post("/act")(self.act)
        guard = Guard(server, Access(secret=SECRET, accounts=ACCOUNTS, beyond_loopback=True))
        self.server = TestClient(guard, base_url=HERE, follow_redirects=False)
        self.users: dict[str, str] = {}

    async def act(self, request: Request) -> JSONResponse:
        given = await request.json()
        user = request.scope["user"]
        try:
            act = getattr(self.shop, given["act"])
            if given["act"] == "run":
                result = act(user, "c", ToolCall(given["name"], given["arguments"]), Cancel())
                return JSONResponse({"text": result.text, "error": result.error})
            if given["act"] == "toolbox":
                box = act(user, "c", [given["name"]], {})
                return JSONResponse(
                    {"specs": len(box.specs()), "policy": box.policy(given["name"])}
                )
            if given["act"] == "add_file":
                return JSONResponse({"name": act(user, "c", Path(given["path"]), "a.txt")})
            found = act(user, *given["values"])
            return JSONResponse({"done": repr(found)})
        except GlmError as error:
            return JSONResponse({"refused": str(error), "kind": type(error).__name__})

    def ask(self, who: str, act: str, *values: object, **about) -> dict:
        """What the server says to somebody who has logged in."""
        headers = self.headers(who)
        answer = self.server.post(
            "/act", json={"act": act, "values": values, **about}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def mcp(self, who: str, message: dict) -> str:
        """What /mcp answers to somebody who has logged in."""
        more = {"accept": "application/json, text/event-stream"}
        answer = self.server.post("/mcp", json=message, headers={**self.headers(who), **more})
        assert answer.status_code == 200, answer.text
        return answer.text

    def headers(self, who: str) -> dict[str, str]:
        if who not in self.users:
            password = {"ann": "correct horse", "bob": "battery staple"}[who]
            self.server.cookies.clear()
            log_in(self.server, who, password)
            self.users[who] = self.server.cookies["glm_7860"]
        self.server.cookies.clear()
        return {"origin": HERE, "cookie": f"glm_7860={self.users[who]}"}


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    (tmp_path / "my").mkdir()
    (tmp_path / "secret.txt").write_text(CANARY)
    made = Two(tmp_path)
    yield made
    made.shop.close()
    made.store.close()


def test_nobody_without_a_login_reaches_the_tools(two):
    for path in ("/act", "/mcp"):
        answer = two.server.post(path, json={}, headers={"origin": HERE})
        assert answer.status_code == 401


def test_a_visitors_function_reads_no_file_of_the_server(two, tmp_path):
    if two.shop.isolation() == "off":
        assert two.ask("bob", "paste_function", READ)["kind"] == "NotAllowed"
        return
    assert "Card" in two.ask("bob", "paste_function", READ)["done"]
    assert "Card" in two.ask("bob", "paste_function", LIST)["done"]
    repository = Path(__file__).resolve().parent.parent
    files = [tmp_path / "secret.txt", tmp_path / "chats.db", repository / "tools/workshop.py"]
    for path in [*files, "/etc/shadow", "/proc/1/environ", "/proc/self/../1/environ"]:
        said = two.ask("bob", "run", name="steal", arguments={"path": str(path)})
        assert said["error"] and CANARY not in said["text"], path
    for path in (tmp_path, tmp_path / "data", repository, Path.home()):
        said = two.ask("bob", "run", name="look", arguments={"path": str(path)})
        assert said["error"] or "secret" not in said["text"]
        assert "workshop" not in said["text"] and "chats" not in said["text"]


def test_a_visitors_function_sees_no_variable_and_no_network(two, tmp_path, monkeypatch):
    if two.shop.isolation() == "off":
        pytest.skip("no isolation works on this machine")
    monkeypatch.setenv("HF_TOKEN", CANARY)
    two.ask("bob", "paste_function", ENVIRONMENT)
    said = two.ask("bob", "run", name="show", arguments={})
    assert not said["error"] and CANARY not in said["text"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        two.ask("bob", "paste_function", REACH)
        assert two.ask("bob", "run", name="reach", arguments={"port": port})["error"]


def test_pasting_runs_nothing_of_the_text(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two.ask("bob", "paste_function", SCHEDULE)
    two.ask("bob", "cards")
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    ("act", "values"),
    [
        ("add_server", ['{"mcpServers": {"evil": {"command": "touch", "args": ["x"]}}}']),
        ("servers", []),
        ("approve", ["plain"]),
        ("remove_server", ["plain"]),
        ("allow_unisolated", []),
        ("let_visitors", ["get_time", False]),
    ],
)
def test_what_is_the_operators_is_refused_to_a_visitor(two, act, values, tmp_path):
    entry = {**PLAIN, "env": {"SERVER_SETTING": CANARY}}
    (tmp_path / "data").mkdir()
    before = json.dumps({"mcpServers": {"plain": entry}})
    (tmp_path / "data" / "mcp.json").write_text(before)
    kind = two.shop.isolation()
    said = two.ask("bob", act, *values)
    assert said["kind"] == "NotAllowed" and "only the operator may" in said["refused"]
    assert (tmp_path / "data" / "mcp.json").read_text() == before
    assert two.shop.isolation() == kind
    assert not (tmp_path / "data" / "started.txt").exists()
    assert not (tmp_path / "data" / "visitors.json").exists()


@pytest.mark.parametrize("path", ["secret.txt", "chats.db", "data/uploads/../../secret.txt"])
def test_a_visitor_opens_no_path(two, path, tmp_path):
    said = two.ask("bob", "add_file", path=str(tmp_path / path))
    assert said["kind"] == "NotAllowed"
    assert two.ask("ann", "add_file", path=str(tmp_path / "secret.txt")) == {"name": "a.txt"}


def test_the_tools_of_a_server_are_the_operators_until_mcp_json_says_more(two, tmp_path):
    plain = {"mcpServers": {"plain": {**PLAIN, "cwd": str(tmp_path)}}}
    two.ask("ann", "add_server", json.dumps(plain))
    assert "'echo'" in two.ask("ann", "servers")["done"]
    two.ask("ann", "approve", "plain")
    assert "origin='mcp:plain'" in two.ask("ann", "cards")["done"]
    said = two.ask("ann", "run", name="echo", arguments={"text": "hello"})
    assert said == {"text": "hello", "error": False}
    assert "mcp:plain" not in two.ask("bob", "cards")["done"]
    said = two.ask("bob", "run", name="echo", arguments={"text": "hello"})
    assert said["error"] and "no tool 'echo'" in said["text"]
    plain["mcpServers"]["plain"]["visitors"] = True
    (tmp_path / "data" / "mcp.json").write_text(json.dumps(plain))
    two.ask("ann", "servers")  # the file is read anew
    said = two.ask("bob", "run", name="echo", arguments={"text": "hello"})
    assert said == {"text": "hello", "error": False}


SUM = {"name": "calculator", "arguments": {"expression": "6*7"}}


def test_a_tool_that_the_operator_turned_off_is_refused_to_visitors_alone(two, tmp_path):
    assert two.ask("bob", "run", **SUM) == {"text": "42", "error": False}
    assert "visitors=True" in two.ask("ann", "cards")["done"]
    assert "visitors=None" in two.ask("bob", "cards")["done"]
    two.ask("ann", "let_visitors", "calculator", False)
    said = two.ask("bob", "run", **SUM)
    assert said["error"] and "no tool 'calculator'" in said["text"]
    assert two.ask("bob", "toolbox", name="calculator") == {"specs": 0, "policy": "deny"}
    assert "'calculator'" not in two.ask("bob", "cards")["done"]
    assert two.ask("ann", "run", **SUM) == {"text": "42", "error": False}
    two.shop.close()
    two.shop = Workshop(tmp_path / "data", my=tmp_path / "my")
    assert two.ask("bob", "run", **SUM)["error"]  # it is kept
    two.ask("ann", "let_visitors", "calculator", True)
    assert two.ask("bob", "run", **SUM) == {"text": "42", "error": False}


def test_a_list_of_rights_that_cannot_be_read_allows_visitors_nothing(two, tmp_path):
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "visitors.json").write_text('{"builtin/calculator": "no"}')
    assert two.ask("bob", "run", **SUM)["error"]
    assert two.ask("ann", "run", **SUM) == {"text": "42", "error": False}
    said = two.ask("ann", "let_visitors", "calculator", True)
    assert said["kind"] == "BadRequest" and "visitors.json" in said["refused"]
    assert two.ask("ann", "let_visitors", "no_such", True)["kind"] == "NotFound"


def test_what_was_said_of_a_servers_tool_goes_with_the_server(two, tmp_path):
    plain = json.dumps({"mcpServers": {"plain": {**PLAIN, "cwd": str(tmp_path)}}})
    two.ask("ann", "add_server", plain)
    two.ask("ann", "servers")
    two.ask("ann", "approve", "plain")
    two.ask("ann", "let_visitors", "echo", True)
    said = two.ask("bob", "run", name="echo", arguments={"text": "hello"})
    assert said == {"text": "hello", "error": False}
    two.ask("ann", "remove_server", "plain")
    two.ask("ann", "add_server", plain)
    two.ask("ann", "servers")
    two.ask("ann", "approve", "plain")
    assert two.ask("ann", "run", name="echo", arguments={"text": "hello"})["text"] == "hello"
    assert two.ask("bob", "run", name="echo", arguments={"text": "hello"})["error"]


def test_a_tool_that_is_off_for_visitors_is_not_served_to_them_over_mcp(two):
    two.ask("ann", "let_visitors", "calculator", False)
    with two.server:
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": SUM}
        assert "42" not in two.mcp("bob", asked)
        assert "42" in two.mcp("ann", asked)
        listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert "calculator" not in two.mcp("bob", listed)
        assert "calculator" in two.mcp("ann", listed)


def test_nobody_holds_a_connection_to_mcp_open(two):
    two.ask("bob", "cards")
    cookie = {"cookie": f"glm_7860={two.users['bob']}", "origin": HERE}
    for method in ("GET", "DELETE"):
        answer = two.server.request(method, "/mcp", headers=cookie)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

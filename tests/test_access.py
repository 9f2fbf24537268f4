"""Who may send what: keys, hosts, origins, sizes, sessions of the page."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from api.access import Access, Guard
from api.limits import BODY_BYTES
from tests.guarded import (
    ACCOUNTS,
    HERE,
    HTML,
    SECRET,
    client,
    echo,
    log_in,
    login_client,
    open_client,
)

# ---- who somebody is ----


def test_the_person_at_a_loopback_page_is_the_operator():
    seen = open_client().get("/x").json()
    assert seen["operator"] is True


def test_a_browser_on_loopback_gets_a_cookie_of_its_own_that_scripts_cannot_read():
    browser, other = open_client(), open_client()
    first = browser.get("/", headers=HTML)
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    owner = browser.get("/x").json()["id"]
    other.get("/", headers=HTML)
    assert owner.startswith("browser:") and owner in first.text
    assert other.get("/x").json()["id"] != owner


def test_an_invented_browser_cookie_is_not_believed():
    browser = open_client()
    browser.get("/", headers=HTML)
    token = browser.cookies["glm_7860"]
    forged = open_client().get("/x", headers={"cookie": f"glm_7860={token[:-2]}xx"})
    assert forged.json()["id"] == "local"


def test_a_server_beyond_loopback_without_a_login_cannot_be_made():
    with pytest.raises(ValueError, match="needs a login"):
        Access(secret=SECRET, beyond_loopback=True)


def test_a_proxy_in_front_of_a_server_without_a_login_is_refused():
    answer = open_client().get("/x", headers={"x-forwarded-for": "203.0.113.7"})
    assert answer.status_code == 403
    assert "--auth" in answer.json()["error"]["message"]


# ---- keys ----


def test_a_key_opens_the_program_interface():
    seen = login_client(keys=["k1", "k2"]).get("/v1/x", headers={"authorization": "Bearer k2"})
    assert seen.json()["id"].startswith("key:") and seen.json()["operator"] is False


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer", "Bearer ", "bearer k1x", "Basic azE="]
)
def test_a_wrong_key_is_refused(header):
    answer = login_client(keys=["k1"]).get("/v1/x", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "unauthorized"


def test_a_wrong_key_is_refused_although_the_cookie_is_good():
    browser = login_client(keys=["k1"])
    log_in(browser)
    assert browser.get("/x", headers={"authorization": "Bearer k2"}).status_code == 401


def test_with_a_key_the_interface_wants_it_on_loopback_too_and_the_page_does_not():
    here = client(keys=["k1"])
    assert here.get("/v1/models").status_code == 401
    assert here.get("/v1/models", headers={"authorization": "Bearer k1"}).status_code == 200
    assert here.get("/", headers=HTML).status_code == 200


def test_on_loopback_without_a_key_the_key_that_clients_invent_does_not_matter():
    answer = open_client().get("/v1/models", headers={"authorization": "Bearer sk-none"})
    assert answer.status_code == 200


# ---- host and origin ----


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "", "127.0.0.1.evil.example"]
)
def test_a_foreign_host_is_refused(host):
    assert open_client().get("/x", headers={"host": host}).status_code == 403
    assert login_client().get("/login", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:7860", "[::1]:7860"])
def test_the_names_of_this_machine_are_answered(host):
    assert open_client().get("/x", headers={"host": host}).status_code == 200


def test_an_address_of_the_network_is_answered_only_beyond_loopback():
    host = {"host": "192.168.1.20:7860"}
    assert open_client().get("/health", headers=host).status_code == 403
    assert login_client().get("/health", headers=host).status_code == 200


def test_a_name_can_be_allowed():
    there = login_client(names=["GPU.lan"])
    assert there.get("/health", headers={"host": "gpu.lan:7860"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "http://127.0.0.1:3000",
        "http://localhost:7860",
        "file://",
        "x",
    ],
)
def test_a_change_from_another_page_is_refused(method, origin):
    answer = open_client().request(method, "/x", headers={"origin": origin})
    assert answer.status_code == 403


@pytest.mark.parametrize("headers", [{}, {"origin": HERE}, {"sec-fetch-site": "same-origin"}])
def test_a_change_from_the_own_page_or_a_program_is_accepted(headers):
    assert open_client().post("/x", headers=headers).status_code == 200


def test_a_change_that_a_browser_calls_cross_site_is_refused():
    assert open_client().post("/x", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_behind_a_proxy_the_public_name_may_send_changes():
    there = login_client(root_path="https://glm.example/chat", keys=["k"])
    headers = {"origin": "https://glm.example", "authorization": "Bearer k"}
    assert there.post("/chat/v1/x", headers=headers).json()["path"] == "/v1/x"


def test_behind_a_proxy_the_login_stays_under_the_root_path():
    there = login_client(root_path="/glm")
    assert there.get("/glm/", headers=HTML).headers["location"] == "/glm/login?next=/"
    assert there.get("/", headers=HTML).headers["location"] == "/glm/login?next=/"
    assert 'action="/glm/login"' in there.get("/glm/login").text
    assert log_in(there).headers["location"] == "/glm/"


# ---- sizes ----


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read():
    headers = {"content-length": str(200 * 1024**2)}
    answer = open_client().post("/x", content=iter([b"x"]), headers=headers)
    assert answer.status_code == 413


def test_a_body_that_grows_too_large_is_refused_while_it_streams():
    chunk, taken = b"x" * 1024**2, [0]

    def endless():
        for _ in range(200):
            taken[0] += 1
            yield chunk

    answer = open_client().post("/x", content=endless())
    assert answer.status_code == 413


def test_a_body_at_the_limit_arrives_whole():
    answer = open_client().post("/x", content=b"x" * BODY_BYTES)
    assert answer.json()["size"] == BODY_BYTES


# ---- sessions of the page ----


def two_people() -> tuple[TestClient, TestClient]:
    guard = Guard(echo(), Access(secret=SECRET, accounts=ACCOUNTS, beyond_loopback=True))
    ann = TestClient(guard, base_url=HERE, follow_redirects=False)
    bob = TestClient(guard, base_url=HERE, follow_redirects=False)
    log_in(ann)
    log_in(bob, "bob", "battery staple")
    return ann, bob


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/gradio_api/queue/data?session_hash=abc", None),
        ("GET", "/gradio_api/heartbeat/abc", None),
        ("POST", "/gradio_api/queue/join", {"session_hash": "abc", "data": []}),
        ("POST", "/gradio_api/cancel", {"session_hash": "abc", "event_id": "1", "fn_index": 1}),
        ("POST", "/gradio_api/run/x", {"data": [], "session_hash": "abc"}),
    ],
)
def test_a_session_of_somebody_else_does_not_exist(method, path, body):
    ann, bob = two_people()
    assert ann.post("/gradio_api/queue/join", json={"session_hash": "abc"}).status_code == 200
    assert bob.request(method, path, json=body).status_code == 404
    assert ann.request(method, path, json=body).status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b"nul"])
def test_a_page_event_that_is_no_json_is_refused(body):
    answer = open_client().post("/gradio_api/queue/join", content=body)
    assert answer.status_code == 400


def test_the_body_of_a_page_event_arrives_whole():
    body = {"session_hash": "abc", "data": ["x" * 100_000]}
    answer = open_client().post("/gradio_api/queue/join", json=body)
    assert answer.json()["size"] > 100_000


# ---- headers ----


def test_a_page_may_load_nothing_from_elsewhere():
    answer = open_client().get("/", headers=HTML)
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"

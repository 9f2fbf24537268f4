"""Who may send what: login, keys, hosts, origins, sizes, sessions, over every route."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.testclient import TestClient

from api.access import Access, Guard
from api.accounts import Account, hash_password, read_accounts
from api.limits import BODY_BYTES
from api.login import Brake, safe_target
from api.sessions import LOGIN_SECONDS, Sessions, load_secret

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


# ---- logging in ----


def test_a_page_without_a_login_leads_to_the_login_and_back():
    browser = login_client()
    answer = browser.get("/chat?x=1", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/chat%3Fx%3D1")
    form = browser.get(answer.headers["location"], headers=HTML)
    assert 'value="/chat?x=1"' in form.text
    done = log_in(browser, next="/chat?x=1")
    assert (done.status_code, done.headers["location"]) == (303, "/chat?x=1")
    assert browser.get("/x").json() == {
        "id": "login:ann", "name": "ann", "operator": True, "size": 0, "path": "/x",
    }  # fmt: skip


def test_only_the_first_account_is_the_operator():
    browser = login_client()
    log_in(browser, "bob", "battery staple")
    seen = browser.get("/x").json()
    assert (seen["name"], seen["operator"]) == ("bob", False)


@pytest.mark.parametrize(
    ("user", "password"),
    [("ann", "wrong"), ("ann", ""), ("ann", "battery staple"), ("eve", "correct horse"), ("", "")],
)
def test_a_wrong_login_is_refused_without_saying_what_was_wrong(user, password):
    browser = login_client(lang="en")
    answer = log_in(browser, user, password)
    assert answer.status_code == 401
    assert "The user name or the password is wrong." in answer.text
    assert browser.get("/x").status_code == 401


def test_logging_out_ends_the_session_even_for_a_copied_cookie():
    browser = login_client()
    log_in(browser)
    copied = browser.cookies["glm_7860"]
    assert browser.get("/logout").status_code == 303
    assert browser.get("/x", headers={"cookie": f"glm_7860={copied}"}).status_code == 401


def test_another_site_can_log_nobody_in_or_out():
    browser = login_client()
    data = {"user": "ann", "password": "correct horse"}
    assert (
        browser.post("/login", data=data, headers={"origin": "http://evil.example"}).status_code
        == 403
    )
    log_in(browser)
    assert browser.get("/logout", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert browser.get("/x").status_code == 200


def test_guessing_has_to_wait_longer_and_longer():
    now = [0.0]
    brake = Brake(clock=lambda: now[0])
    who = ("1.2.3.4", "ann")
    waits = []
    for _ in range(9):
        brake.failed(who)
        waits.append(brake.wait(who))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16]
    now[0] = 20
    assert brake.wait(who) == 0
    assert brake.wait(("5.6.7.8", "ann")) == 0


def test_after_many_wrong_passwords_the_right_one_waits_too():
    browser = login_client(lang="en")
    for _ in range(5):
        log_in(browser, password="wrong")
    answer = log_in(browser)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_the_login_page_shows_what_was_typed_as_text():
    answer = log_in(login_client(), user='"><script>alert(1)</script>')
    assert "<script>alert" not in answer.text


def test_the_login_page_speaks_the_language_of_the_browser():
    browser = login_client()
    chinese = browser.get("/login", headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"})
    english = browser.get("/login", headers={"accept-language": "fr,en;q=0.8"})
    assert 'lang="zh-CN"' in chinese.text and "登录" in chinese.text
    assert 'lang="en"' in english.text and "Sign in" in english.text


def test_the_login_page_loads_nothing_from_elsewhere():
    text = login_client().get("/login").text
    assert not re.search(r"(src|href)=|url\(|https?://", text)


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "",
        "/\r\nx",
    ],
)
def test_the_login_leads_nowhere_else(target):
    assert safe_target(target) == "/"


@pytest.mark.parametrize(
    "body", [b"user=" + b"a" * 10_000, b"&".join([b"a=1"] * 5000), b"\xff\xfe"]
)
def test_a_form_that_is_no_login_form_logs_nobody_in(body):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert login_client().post("/login", content=body, headers=headers).status_code == 401


def test_a_session_ends_after_a_week_and_with_the_password():
    now = [1_000_000.0]
    from api.accounts import Accounts

    sessions = Sessions(SECRET, Accounts(ACCOUNTS), clock=lambda: now[0])
    token = sessions.login(ACCOUNTS[0])
    changed = Account("ann", hash_password("new"), operator=True)
    assert sessions.user(token)
    assert Sessions(SECRET, Accounts([changed]), clock=lambda: now[0]).user(token) is None
    assert Sessions(b"t" * 32, Accounts(ACCOUNTS), clock=lambda: now[0]).user(token) is None
    now[0] += LOGIN_SECONDS + 1
    assert sessions.user(token) is None


def test_behind_tls_the_cookie_is_secure():
    guard = Guard(echo(), Access(secret=SECRET, accounts=ACCOUNTS, names=["glm.example"]))
    browser = TestClient(guard, base_url="https://glm.example", follow_redirects=False)
    form = {"user": "ann", "password": "correct horse"}
    answer = browser.post("/login", data=form, headers={"origin": "https://glm.example"})
    assert "; Secure" in answer.headers["set-cookie"]


# ---- accounts ----


def test_accounts_come_from_words_and_files_and_the_first_is_the_operator(tmp_path):
    file = tmp_path / "accounts"
    file.write_text(f"# people\nbob:{hash_password('b:c')}\n\ncarl:plain\n", encoding="utf-8")
    found = read_accounts(["ann:a", str(file)])
    assert [(a.name, a.operator) for a in found] == [("ann", True), ("bob", False), ("carl", False)]
    assert all(account.hash.startswith("scrypt$") for account in found)


@pytest.mark.parametrize("value", ["ann", "ann:", ":secret", "a b:secret", "/no/such/file"])
def test_an_account_that_is_none_is_refused_without_its_password(value):
    with pytest.raises(ValueError, match="--auth") as caught:
        read_accounts([value])
    assert "secret" not in str(caught.value)


def test_the_same_name_twice_is_refused():
    with pytest.raises(ValueError, match="ann more than once"):
        read_accounts(["ann:a", "ann:b"])


def test_the_secret_is_kept_and_only_its_owner_reads_it(tmp_path):
    secret = load_secret(tmp_path)
    assert load_secret(tmp_path) == secret
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    (tmp_path / "secret").write_bytes(b"torn")
    assert len(load_secret(tmp_path)) == 32


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

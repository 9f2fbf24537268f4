"""Logging in and out, accounts, and what guessing costs."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from api.access import Access, Guard
from api.accounts import Account, Accounts, hash_password, read_accounts
from api.login import Brake, safe_target
from api.sessions import LOGIN_SECONDS, Sessions, load_secret
from tests.guarded import ACCOUNTS, HTML, SECRET, echo, log_in, login_client

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
    assert not re.search(r"src=|href=\"(?!data:)|url\(|https?://", text)


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

"""The one place that decides who may send what: host, origin, login, key, size, session.

`guard` wraps the whole application, page included, as plain ASGI, so a route cannot be forgotten.
It sets `scope["user"]`. Without accounts the server must be on loopback: then the person at the
page is the operator, known by a random cookie. It does not encrypt: that is a proxy's work.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers, MutableHeaders

from api import tabs
from api.accounts import Account, Accounts
from api.limits import Asgi, BodyLimit, Message, Receive, Scope, Send, error, limit_of
from api.login import Login, safe_target
from api.origins import Origins
from api.sessions import LOGIN_SECONDS, VISITOR_SECONDS, Sessions
from glm.identity import LOCAL, User

API_PATHS = ("/v1", "/mcp")
OPEN_PATHS = ("/health",)  # says no more than that the server is up
NOBODY = User(id="nobody")
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded")
# Scripts stay allowed because Gradio's page is built on inline ones; what a model wrote can
# still load nothing from elsewhere.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


@dataclass
class Access:
    """Who may use a server. No accounts: only the person at this machine."""

    secret: bytes
    accounts: Sequence[Account] = ()
    keys: Sequence[str] = ()
    names: Sequence[str] = ()
    beyond_loopback: bool = False
    root_path: str = ""
    lang: str = "auto"
    port: int = 7860
    origins: Origins = field(init=False)

    def __post_init__(self) -> None:
        if self.beyond_loopback and not self.accounts:
            raise ValueError("a server that others can reach needs a login")
        public = urlsplit(self.root_path).hostname
        names = [*self.names, *([public] if public else [])]
        self.origins = Origins(names, beyond=self.beyond_loopback)

    @property
    def prefix(self) -> str:
        """The path of root_path: `/glm` for `https://host/glm/`."""
        return urlsplit(self.root_path).path.rstrip("/")


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: Asgi, access: Access) -> None:
        self._app, self._access = app, access
        accounts = Accounts(access.accounts) if access.accounts else None
        self._sessions = Sessions(access.secret, accounts)
        self._login = Login(accounts, access.lang) if accounts else None
        self._tabs = tabs.Tabs()
        self._keys = [key.encode() for key in access.keys]
        self._cookie = f"glm_{access.port}"  # cookies know no ports: two programs, two names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no part of the program speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        scope = self._without_prefix(scope)
        headers = Headers(scope=scope)
        send = _with_safe_headers(send)
        refused = self._refusal(scope, headers)
        if refused:
            await refused(scope, receive, send)
            return
        if self._login and scope["path"] in ("/login", "/logout"):
            answer = await self._log_in_or_out(Request(scope, receive), self._login)
            await answer(scope, receive, send)
            return
        user = self._identify(scope, headers)
        if isinstance(user, Response):
            await user(scope, receive, send)
            return
        user, send = self._greet(scope, headers, user, send)
        scope["user"] = user
        await BodyLimit(self._owned, limit_of(scope["path"]))(scope, receive, send)

    def _without_prefix(self, scope: Scope) -> Scope:
        """A proxy may or may not strip the root path; from here on it is stripped."""
        prefix, path = self._access.prefix, scope["path"]
        if not prefix or not (path == prefix or path.startswith(prefix + "/")):
            return dict(scope)
        path = path[len(prefix) :] or "/"
        return {**scope, "path": path, "raw_path": quote(path).encode()}

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        problem = self._access.origins.host_problem(headers)
        problem = problem or self._access.origins.origin_problem(scope["method"], headers)
        if problem:
            return error(403, problem, "forbidden")
        if self._login is None and any(name in headers for name in FORWARDED):
            sentence = (
                "a proxy forwards this request to a server without a login; start with --auth"
            )
            return error(403, sentence, "forbidden")
        return None

    def _identify(self, scope: Scope, headers: Headers) -> User | Response:
        """The user of a request, or the answer for nobody."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (self._keys or self._login):
            user = self._key_owner(key.strip())
            return user or _unauthorized("the key is wrong; see --api-key")
        if scope["path"] in OPEN_PATHS:
            return NOBODY
        cookie = self._cookie_of(headers)
        if self._login is None:
            if self._keys and scope["path"].startswith(API_PATHS):
                return _unauthorized("send the key of --api-key as Authorization: Bearer KEY")
            return self._sessions.browser(cookie) or LOCAL
        user = self._sessions.user(cookie)
        if user:
            return user
        if _is_navigation(scope, headers):
            target = quote(scope["path"] + _query(scope), safe="/")
            return RedirectResponse(f"{self._access.prefix}/login?next={target}", 303)
        return _unauthorized("log in, or send Authorization: Bearer KEY (see --api-key)")

    def _key_owner(self, key: str) -> User | None:
        given = key.encode("utf-8", "surrogatepass")
        matches = [hmac.compare_digest(given, known) for known in self._keys]  # no early end
        if not any(matches):
            return None
        return User(id=f"key:{hashlib.sha256(given).hexdigest()[:16]}", name="api")

    def _greet(self, scope: Scope, headers: Headers, user: User, send: Send) -> tuple[User, Send]:
        """Give a browser that opens a page without a login its cookie."""
        if user is not LOCAL or not _is_navigation(scope, headers):
            return user, send
        token = self._sessions.new_browser()
        known = self._sessions.browser(token) or LOCAL
        cookie = self._set_cookie(scope, token, VISITOR_SECONDS)

        async def greeting(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        return known, greeting

    async def _log_in_or_out(self, request: Request, login: Login) -> Response:
        prefix, scope = self._access.prefix, request.scope
        action = f"{prefix}/login"
        if request.url.path.endswith("/logout"):
            if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
                return error(403, "only this page may log out", "forbidden")
            self._sessions.end(self._cookie_of(request.headers))
            answer: Response = RedirectResponse(action, 303)
            answer.headers["set-cookie"] = self._set_cookie(scope, "", 0)
            return answer
        if request.method in ("GET", "HEAD"):
            return login.page(request, action)
        if request.method != "POST":
            return error(405, "send the form with POST", "method_not_allowed")
        result = await login.submit(request, action)
        if isinstance(result, Response):
            return result
        account, target = result
        answer = RedirectResponse(prefix + safe_target(target), 303)
        token = self._sessions.login(account)
        answer.headers["set-cookie"] = self._set_cookie(scope, token, LOGIN_SECONDS)
        return answer

    def _cookie_of(self, headers: Headers) -> str:
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie:
                return value
        return ""

    def _set_cookie(self, scope: Scope, token: str, seconds: int) -> str:
        path = self._access.prefix or "/"
        cookie = f"{self._cookie}={token}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax"
        return cookie + ("; Secure" if scope["scheme"] == "https" else "")

    async def _owned(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a Gradio session of somebody else, then run the application."""
        sessions = tabs.named_without_body(scope)
        if tabs.may_name_in_body(scope):
            try:
                named, receive = await tabs.read_body(receive)
            except tabs.BadBody as problem:
                await error(400, str(problem), "bad_request")(scope, receive, send)
                return
            sessions += named
        owner = scope["user"].id
        if not all(self._tabs.allows(session, owner) for session in sessions):
            await error(404, "no such session", "not_found")(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _unauthorized(sentence: str) -> Response:
    return error(401, sentence, "unauthorized", www_authenticate="Bearer")


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "GET" and "text/html" in headers.get("accept", "")


def _query(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return f"?{query}" if query else ""


def _with_safe_headers(send: Send) -> Send:
    async def safe(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("x-content-type-options", "nosniff")
            headers.setdefault("referrer-policy", "same-origin")
            if headers.get("content-type", "").startswith("text/html"):
                headers.setdefault("content-security-policy", POLICY)
        await send(message)

    return safe

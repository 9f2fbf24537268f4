"""Who is at the other end: a login, a cookie, or the person at a loopback page.

The HTTP server decides and puts a `User` into the request's ASGI scope under "user";
page and API only read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from glm.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class User:
    """`id` owns conversations; `name` is shown; an operator may load models and open paths."""

    id: str
    name: str = ""
    operator: bool = False

    def require_operator(self, what: str) -> None:
        """Raises NotAllowed with `what` in the sentence unless this is the operator."""
        if not self.operator:
            raise NotAllowed(f"only the operator may {what}")


LOCAL = User(id="local", name="local", operator=True)

"""How a conversation with tools is run: which tools, who is asked, how many rounds.

A `Setup` is kept in the conversation's settings under "tools" and, before there is a
conversation, in the page. It is read back tolerantly: what does not fit is the default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast, get_args

from glm.messages import Policy

PREFIX = "tools-"  # of the ids of conversations that belong to the Tools tab
ROUNDS = (1, 8, 30)  # least, normal, most
PLAIN = ("mode", "constrained", "rounds", "replay", "system", "temperature", "longest", "model")
LONGEST = (16, 512, 8192)  # tokens of one answer
POLICIES: tuple[Policy, ...] = get_args(Policy)
Mode = Literal["auto", "step", "review"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Setup:
    """`names` None: the built-in tools. `mode`: "auto" runs what is allowed, "step" waits before
    every call, "review" after it as well. `replay`: recorded answers instead of the tools.
    `mocks` are fixed answers by a tool's name. `temperature` None is the model's own; `longest`
    is what one answer may have in tokens. `model` answers, "" is whatever is the default.
    """

    names: tuple[str, ...] | None = None
    policies: Mapping[str, Policy] = field(default_factory=dict)
    mode: Mode = "auto"
    constrained: bool = True
    rounds: int = ROUNDS[1]
    replay: bool = False
    mocks: Mapping[str, str] = field(default_factory=dict)
    system: str = ""
    temperature: float | None = None
    longest: int = LONGEST[1]
    model: str = ""

    def enabled(self, known: Iterable[Any]) -> tuple[str, ...]:
        """The names to offer, of these cards, in their order."""
        cards = [card for card in known if card.available]
        if self.names is None:
            return tuple(card.name for card in cards if card.origin == "builtin")
        return tuple(card.name for card in cards if card.name in self.names)

    def policy(self, card: Any) -> Policy:
        return self.policies.get(card.name, card.policy)

    def settings(self) -> dict[str, Any]:
        """For the store, by the names that other parts of the program read."""
        more = {"step": self.mode != "auto", "review": self.mode == "review"}
        return {**asdict(self), "names": self.names and list(self.names), **more}

    def text(self) -> str:
        """For the page, which gives it back with every question."""
        return json.dumps(self.settings(), ensure_ascii=False).replace("<", "\\u003c")


def read_setup(found: Any) -> Setup:
    """A setup of any JSON value or text, such as a page or an older version wrote."""
    if isinstance(found, str):
        try:
            found = json.loads(found or "{}")
        except ValueError:
            found = {}
    data: dict[str, Any] = found if isinstance(found, dict) else {}
    names = data.get("names")
    mode = data.get("mode")
    if mode not in MODES:
        mode = "review" if data.get("review") else "step" if data.get("step") else "auto"
    policies = {k: v for k, v in _strings(data.get("policies")).items() if v in POLICIES}
    return Setup(
        names=tuple(n for n in names if isinstance(n, str)) if isinstance(names, list) else None,
        policies=cast(Mapping[str, Policy], policies),
        mode=cast(Mode, mode),
        constrained=data.get("constrained") is not False,
        rounds=_whole(data.get("rounds"), ROUNDS),
        longest=_whole(data.get("longest"), LONGEST),
        replay=data.get("replay") is True,
        mocks=_strings(data.get("mocks")),
        system=data["system"] if isinstance(data.get("system"), str) else "",
        temperature=_number(data.get("temperature")),
        model=data["model"] if isinstance(data.get("model"), str) else "",
    )


def changed(setup: Setup, field_: str, name: str, value: Any, known: Iterable[Any]) -> Setup:
    """The setup after one change in the panel; what no field takes changes nothing."""
    if field_ == "enabled":
        names = set(setup.enabled(known))
        names = names | {name} if value else names - {name}
        return replace(setup, names=tuple(sorted(names)))
    if field_ == "only":
        return replace(setup, names=(name,) if name else ())
    if field_ == "policy" and value in POLICIES:
        return read_setup({**setup.settings(), "policies": {**setup.policies, name: value}})
    if field_ == "mock":
        rest = {key: text for key, text in setup.mocks.items() if key != name}
        return replace(setup, mocks={**rest, name: value} if value else rest)
    if field_ in PLAIN:
        return read_setup({**setup.settings(), field_: value})
    return setup


def _strings(found: Any) -> dict[str, str]:
    rows = found.items() if isinstance(found, dict) else ()
    return {k: v for k, v in rows if isinstance(k, str) and isinstance(v, str)}


def _whole(value: Any, limits: tuple[int, int, int]) -> int:
    least, normal, most = limits
    try:
        return min(most, max(least, int(value)))
    except (TypeError, ValueError, OverflowError):
        return normal


def _number(value: Any) -> float | None:
    try:
        return min(2.0, max(0.0, float(value))) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None

"""Is a call right, what would the called tool answer, and does the final answer say it?

Plain values in and out, no model. The rules are those of CONVENTIONS.md. It compares strings: a
correct answer in other words ("half past four" for 16:30) counts as wrong.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.pretrain import simulate
from glm.messages import Message, ToolCall, ToolSpec

KEYWORD = re.compile(
    "select|distinct|from|where|and|or|not|in|like|between|is|null|group|order|by|having|limit"
    "|asc|desc|as|join|on|count|avg|sum|min|max",
    re.IGNORECASE,
)
SQL_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|\w+|[^\w\s]")
NOTHING = re.compile(r"\bno\b|\bnot\b|n't\b|\bnothing\b|\bnone\b|没|无|未", re.IGNORECASE)
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """What a tool answered, and the strings that an answer made from it must contain."""

    text: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the model. `clean`: it ended by itself and nothing in it is malformed."""

    message: Message
    clean: bool
    error: str = ""

    @property
    def silent(self) -> bool:
        """Plain text that ended, without a call."""
        return self.clean and not self.message.calls and bool(self.message.content.strip())


@dataclass(frozen=True, slots=True)
class Result:
    """A row, its number of tools, what the model did, and a verdict per metric that counts."""

    row: Row
    tools: int
    first: Turn
    observed: Observed | None
    second: Turn | None
    verdict: Mapping[str, bool]


# ---- the call ----------------------------------------------------------------------------


def same_arguments(row: Row, arguments: Mapping[str, Any]) -> bool:
    """Are these the row's arguments, or one of the others it accepts?"""
    wanted = [row["call"]["arguments"], *row.get("accept", ())]
    return canonical(arguments) in [canonical(one) for one in wanted]


def canonical(value: Any, key: str = "") -> Any:
    """A value in the form in which equal ones are equal: 5 and 5.0, spaces, SQL keywords."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return ("number", float(value))
    if isinstance(value, str):
        if key == "sql":
            return [_word(token) for token in SQL_TOKEN.findall(value.strip().rstrip(";"))]
        return "".join(value.split()) if key == "expression" else value.strip()
    if isinstance(value, Mapping):
        return {name: canonical(item, name) for name, item in value.items()}
    return [canonical(item) for item in value]


def _word(token: str) -> str:
    return token.lower() if KEYWORD.fullmatch(token) else token


def misfit(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What is wrong with the arguments, as a sentence; "" when they fit the schema."""
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in arguments:
            return f"the argument '{name}' is missing"
    for name, value in arguments.items():
        if name not in properties:
            return f"unknown argument '{name}'"
        kind = properties[name].get("type", "string")
        if not isinstance(value, TYPES[kind]) or isinstance(value, bool) != (kind == "boolean"):
            return f"the argument '{name}' must be of type {kind}"
        allowed = properties[name].get("enum")
        if allowed and value not in allowed:
            return f"the argument '{name}' must be one of {', '.join(map(str, allowed))}"
    return ""


# ---- what the tool says ------------------------------------------------------------------


def observe(row: Row, call: ToolCall, offered: Sequence[ToolSpec], rows: Sequence[Row]) -> Observed:
    """What the tool answers to the model's own call, right or wrong. Deterministic.

    Built-in tools are simulated. Another tool gives the row's observation to the row's call; to
    other arguments the same text with other digits; a wrong tool that of a row (of `rows`) where
    it is the right one.
    """
    if row["tools"] == "builtin":
        text = simulate.observe(call.name, call.arguments)
        return Observed(text, tuple(simulate.values(call.name, text)))
    spec = next(tool for tool in offered if tool.name == call.name)
    wrong = misfit(call.arguments, spec.parameters or {})
    if wrong:
        return Observed(f"Error: {wrong}", (wrong,))
    if call.name == row["call"]["name"]:
        if same_arguments(row, call.arguments):
            return Observed(row["observation"], tuple(row["values"]))
        return _varied(row, call)
    other = next((r for r in rows if _calls(r, call.name) and "observation" in r), None)
    return _varied(other, call) if other else _receipt(call)


def _calls(row: Row, name: str) -> bool:
    return bool(row["call"]) and row["call"]["name"] == name


def _varied(row: Row, call: ToolCall) -> Observed:
    """The row's observation with other digits (0 stays) and the call's own words in it."""
    digits = list("123456789")
    _rng(call).shuffle(digits)
    table = str.maketrans("123456789", "".join(digits))
    own = {
        value.translate(table): call.arguments[name]
        for name, value in row["call"]["arguments"].items()
        if isinstance(value, str) and len(value) > 1 and isinstance(call.arguments.get(name), str)
    }

    def change(text: str) -> str:
        text = text.translate(table)
        for old, new in own.items():
            text = text.replace(old, new)
        return text

    return Observed(change(row["observation"]), tuple(change(value) for value in row["values"]))


def _receipt(call: ToolCall) -> Observed:
    """For a tool that no row describes."""
    reference = f"R{_rng(call).randint(1000, 9999)}"
    return Observed(json.dumps({"status": "done", "reference": reference}), (reference,))


def _rng(call: ToolCall) -> random.Random:
    key = json.dumps([call.name, dict(call.arguments)], sort_keys=True, ensure_ascii=False)
    return random.Random(hashlib.sha256(key.encode()).digest())


# ---- the verdict -------------------------------------------------------------------------


def verdict(
    row: Row, first: Turn, observed: Observed | None, second: Turn | None
) -> dict[str, bool]:
    """Right or wrong by metric: abstain where no tool fits, else tool, arguments and answer."""
    if row["call"] is None:
        return {"abstain": first.silent}
    calls = first.message.calls
    tool = first.clean and len(calls) == 1 and calls[0].name == row["call"]["name"]
    arguments = tool and same_arguments(row, calls[0].arguments)
    answer = bool(observed and second and second.silent and _tells(second, observed))
    return {"tool": tool, "arguments": arguments, "answer": answer}


def _tells(turn: Turn, observed: Observed) -> bool:
    """Does the answer contain every value? With nothing found, does it say so?"""
    answer = turn.message.content
    if not observed.values:
        return bool(NOTHING.search(answer))
    return all(_contains(answer, value) for value in observed.values)


def _contains(answer: str, value: str) -> bool:
    """Case and runs of spaces do not count; a number is not part of a longer number."""
    wanted = " ".join(value.casefold().split())
    before = r"(?<![\d.\-])" if wanted[:1].isdigit() else ""
    after = r"(?!\.?\d)" if wanted[-1:].isdigit() else ""
    text = " ".join(answer.casefold().split())
    return re.search(before + re.escape(wanted) + after, text) is not None

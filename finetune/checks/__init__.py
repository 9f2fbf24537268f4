"""What can be wrong with one conversation of a data file. No torch.

    for problem in check(conversation): print(problem.code, problem.said)

CHECKS lists every code with its weight: an error teaches something wrong or nothing at all, a
warning costs quality, information is for knowing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from finetune.formats import tool_specs
from finetune.formats.chatglm3 import EMPTY_BLOCK
from finetune.scoring.tool_schema import BadSchema, misfit, schema_problem
from glm.dialects.chatglm3 import INTERPRETER
from glm.messages import Conversation, Message, ToolCall, ToolSpec

Weight = Literal["error", "warning", "information"]

# code -> (weight, what it means)
CHECKS: dict[str, tuple[Weight, str]] = {
    "bad-json": ("error", "lines that are no JSON"),
    "bad-row": ("error", "rows that no format can read"),
    "roles": ("error", "turns out of order"),
    "stray-observation": ("error", "observations without a call"),
    "no-tools": ("error", "tool turns in rows that declare no tools"),
    "undeclared-tool": ("error", "calls of tools that the row does not declare"),
    "arguments": ("error", "arguments that break the tool's schema"),
    "not-for-model": ("error", "rows that this model has no prompt for"),
    "first-turn": ("warning", "conversations whose first turn is not the user's"),
    "second-system": ("warning", "rows with a second system turn"),
    "late-system": ("warning", "system turns after the conversation began"),
    "open-end": ("warning", "conversations that end without an answer"),
    "empty-answer": ("warning", "empty answers"),
    "bad-schema": ("warning", "tools whose schema is none"),
    "nothing-learnt": ("warning", "rows in which nothing is learnt"),
    "too-long": ("warning", "rows over the length"),
    "duplicate": ("warning", "rows that stand in the file before"),
    "leak": ("warning", "dev rows that stand in the training data"),
    "same-question": ("information", "dev rows whose questions stand in the training data"),
    "tools-unused": ("information", "rows with tools and no call (abstention is wanted, too)"),
    "tools-missing": ("warning", "no row has tools"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in one row."""

    code: str
    said: str


def check(conversation: Conversation) -> Iterator[Problem]:
    """The problems that the conversation alone shows."""
    messages = conversation.messages
    if messages[:1] == (EMPTY_BLOCK,):
        messages = messages[1:]
    yield from _systems(messages)
    spoken = [message for message in messages if message.role != "system"]
    yield from _order(spoken)
    yield from _tools(conversation, spoken)
    for message in spoken:
        if message.role == "assistant" and not message.calls and not message.content.strip():
            yield Problem("empty-answer", "an answer is empty")
            break
    if not learns(conversation):
        yield Problem("nothing-learnt", "no turn is the assistant's, or none is to be learnt")


def learns(conversation: Conversation) -> bool:
    """Whether any turn is to be learnt."""
    return any(m.role == "assistant" and m.learn is not False for m in conversation.messages)


def _systems(messages: tuple[Message, ...]) -> Iterator[Problem]:
    places = [number for number, message in enumerate(messages) if message.role == "system"]
    if len(places) > 1:
        yield Problem("second-system", f"{len(places)} system turns; one is usual")
    if any(place > number for number, place in enumerate(places)):
        late = next(place for number, place in enumerate(places) if place > number)
        yield Problem("late-system", f"turn {late + 1} is the system's; it belongs before the user")


def _order(spoken: list[Message]) -> Iterator[Problem]:
    """User and assistant in turn; observations after calls, no more of them than calls."""
    if spoken and spoken[0].role != "user":
        yield Problem("first-turn", f"the first turn is the {_who(spoken[0])}'s")
    before, waiting = "", 0
    for number, message in enumerate(spoken, 1):
        role = message.role
        if role == "tool":
            if not waiting:
                yield Problem("stray-observation", f"turn {number}: an observation without a call")
            waiting = max(0, waiting - 1)
        elif waiting and role == "user":
            yield Problem("roles", f"turn {number}: the user speaks before the call is answered")
            waiting = 0
        elif role == before:
            yield Problem("roles", f"turn {number}: the {_who(message)} speaks twice in a row")
        if message.calls:
            waiting = len(message.calls)
        before = role if role != "tool" else "observation"
    if spoken and spoken[-1].role != "assistant":
        yield Problem("open-end", f"the last turn is the {_who(spoken[-1])}'s")


def _tools(conversation: Conversation, spoken: list[Message]) -> Iterator[Problem]:
    calls = [call for message in spoken for call in message.calls if call.name != INTERPRETER]
    interprets = any(call.name == INTERPRETER for message in spoken for call in message.calls)
    observed = any(message.role == "tool" for message in spoken)
    if not conversation.tools:
        if calls or (observed and not interprets):
            yield Problem("no-tools", "it calls tools and declares none")
        return
    if not calls and not interprets and not observed:
        yield Problem("tools-unused", "it has tools and calls none")
    for tool in conversation.tools:
        if wrong := schema_problem(tool):
            yield Problem("bad-schema", f"the schema of {tool.name}: {wrong}")
    for call in calls:
        if not any(_declares(tool, call.name) for tool in conversation.tools):
            yield Problem("undeclared-tool", f"it calls {call.name}, which it does not declare")
            continue
        for tool in [tool for tool in conversation.tools if tool.name == call.name][:1]:
            yield from _arguments(tool, call)


def _declares(tool: ToolSpec, name: str) -> bool:
    """By its name, or in a text that describes one or more functions."""
    if tool.name == name or (tool.raw is None and not tool.name):
        return True
    if not isinstance(tool.raw, str):
        return False
    listed = tool_specs.documented(tool.raw)
    return name in listed or (not listed and bool(re.search(rf"\b{re.escape(name)}\b", tool.raw)))


def _arguments(tool: ToolSpec, call: ToolCall) -> Iterator[Problem]:
    """The first way in which arguments break a schema."""
    try:
        wrong = misfit(tool, call.arguments)
    except BadSchema as error:
        yield Problem("bad-schema", f"the schema of {tool.name} {error}")
        return
    if wrong:
        yield Problem("arguments", f"{tool.name}: {wrong}")


def _who(message: Message) -> str:
    return {"tool": "tool", "user": "user", "assistant": "assistant"}[message.role]

"""ToolAlpaca: an API with its documentation as one text, and instances of its use.

Read as the official format_tool_alpaca.py does: the documentation is the only tool, what stands
before "Action:" is the thought, the answer is the final thought, a newline and the output. An
API holds many conversations: `only` makes a row of one. Of an evaluation file (`Instructions`,
`Golden_Answers`) the first call is read: the others follow from observations nobody recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune.formats.base import BadRow, CannotHold, observation, short, text
from finetune.formats.turns import call
from finetune.formats.writing import Step, steps
from glm.messages import Conversation, Message, ToolCall, ToolSpec

name = "toolalpaca"
INSTANCES, GOLDEN = MANY = ("Instances", "Golden_Answers")
_ONE, _ASKED, _DONE = "Instance", "Instructions", "Final Thought"
KEYS = ("NLDocumentation", *MANY, _ONE)


def looks_like(row: Mapping[str, Any]) -> bool:
    return any(key in row for key in KEYS)


def count(row: Mapping[str, Any]) -> int:
    """How many conversations an API holds; 0 for any other row."""
    found = next((row[key] for key in MANY if key in row), None)
    return len(found) if isinstance(found, list) else 0


def only(row: Mapping[str, Any], which: int) -> dict[str, Any]:
    """An API with one of its conversations."""
    lists = {key: row[key] for key in (*MANY, _ASKED) if isinstance(row.get(key), list)}
    return {**row, **{key: found[which : which + 1] for key, found in lists.items()}}


def read(row: Mapping[str, Any]) -> Conversation:
    """The conversation of one instance. Raises BadRow."""
    if _ONE in row:
        messages = _instance(row[_ONE])
    elif not any(key in row for key in MANY):
        raise BadRow(f'"{INSTANCES}" is missing')
    elif (found := count(row)) != 1:
        raise BadRow(f"it holds {found} conversations where one is expected")
    else:
        messages = _instance(row[INSTANCES][0]) if INSTANCES in row else _golden(row)
    documentation = text(row.get("NLDocumentation"), "NLDocumentation")
    tools = (ToolSpec("", raw=documentation),) if documentation else ()
    return Conversation(tuple(messages), _named(tools))


def write(conversation: Conversation) -> dict[str, Any]:
    """An API of one instance."""
    first, *rest = conversation.messages or (Message("assistant"),)
    told = list(steps(Conversation(tuple(rest))))
    final = told.pop().message if told else first
    if first.role != "user" or final.role != "assistant" or final.calls:
        raise CannotHold("it holds a question, calls, and an answer in the end")
    thought, newline, output = final.content.partition("\n")
    instance: dict[str, Any] = {"input": first.content}
    instance["output"] = output if newline else final.content
    if newline:
        instance[_DONE] = thought
    instance["intermediate_steps"] = _written(told)
    documentation = "\n".join(
        tool.raw if isinstance(tool.raw, str) else json.dumps(tool.to_json(), ensure_ascii=False)
        for tool in conversation.tools
    )
    return {"NLDocumentation": documentation, INSTANCES: [instance]}


def _instance(instance: Any) -> list[Message]:
    if not isinstance(instance, Mapping) or not isinstance(instance.get("input"), str):
        raise BadRow('an instance needs an "input"')
    messages = [Message("user", instance["input"])]
    taken = instance.get("intermediate_steps")
    for number, step in enumerate(taken if isinstance(taken, list) else []):
        messages += _step(step, number)
    if "output" not in instance:
        raise BadRow('an instance needs an "output"')
    output = text(instance["output"], "output")
    thought = instance.get(_DONE)
    final = output if thought is None else f"{text(thought, _DONE)}\n{output}"
    return [*messages, Message("assistant", final)]


def _golden(row: Mapping[str, Any]) -> list[Message]:
    """A question and the first call it wants."""
    try:
        (question,), ((first, *_),) = row[_ASKED], row[GOLDEN]
        name, given = first["Action"], first["Action_Input"]
    except (KeyError, TypeError, ValueError):
        raise BadRow(f'"{GOLDEN}" needs an "Action" with its "Action_Input"') from None
    made = call(name, given, "call_1")
    return [Message("user", text(question, _ASKED)), Message("assistant", calls=(made,))]


def _step(step: Any, number: int) -> list[Message]:
    where = f"intermediate_steps[{number}]"
    try:
        (action, given, *thoughts), seen = step
    except (TypeError, ValueError):
        raise BadRow(f"{where} is [[name, input, thought], observation]: {short(step)}") from None
    id = f"call_{number + 1}"
    try:
        made = call(action, given, id)
    except BadRow as error:
        raise BadRow(f"{where}: {error}") from None
    thought = text(thoughts[0] if thoughts else "", where).split("Action:")[0].strip()
    asked = Message("assistant", thought, calls=(made,))
    return [asked, Message("tool", observation(seen, where), name=made.name, call_id=id)]


def _written(told: list[Step]) -> list[Any]:
    out: list[Any] = []
    thought = ""
    for step in told:
        if step.call is None and step.message.role == "assistant" and not thought:
            thought = step.message.content
            continue
        if step.call is None or step.seen is None:
            raise CannotHold("it holds one question, calls with what they brought, and an answer")
        out.append([_action(step.call, thought), step.seen.content])
        thought = ""
    if thought:
        raise CannotHold("it holds one answer, in the end")
    return out


def _action(made: ToolCall, thought: str) -> list[str]:
    given = json.dumps(dict(made.arguments), ensure_ascii=False)
    return [made.name, given, f"{thought}\nAction: {made.name}\nAction Input: {given}"]


def _named(tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    from finetune.formats import tool_specs

    return tool_specs.read([tool.raw for tool in tools], verbatim=True)

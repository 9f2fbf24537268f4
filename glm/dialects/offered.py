"""What every grammar of calls asks of a tool that is offered: its name, and its schema."""

from __future__ import annotations

import re
from collections.abc import Sequence

from glm.dialects.regular import escaped
from glm.dialects.schema import Schema, plain
from glm.dialects.value_grammar import Rules
from glm.dialects.vocabulary import Vocabulary
from glm.errors import BadRequest
from glm.messages import ToolSpec

NAME = re.compile(r"[\w.\-/:]{1,64}")
ANY_NAME = r"[A-Za-z_][A-Za-z0-9_.\-\/:]{0,63}"


def forms(tool: ToolSpec) -> list[Schema] | None:
    """The plain schemas of its arguments, each of an object; None when it has no schema.

    As where a call is checked (tools/arguments.py), a schema that lists its properties, if only an
    empty list, and says nothing about others allows none. Raises BadRequest, naming the
    tool, when a schema cannot be followed.
    """
    if tool.parameters is None:
        return None
    try:
        closed = {"additionalProperties": False} if "properties" in tool.parameters else {}
        schema = plain({"type": "object", **closed, **tool.parameters})
        found = [form for form in schema.get("anyOf", [schema]) if form.get("type") == "object"]
        if not found:
            raise BadRequest("the arguments of a call are an object")
    except BadRequest as error:
        raise BadRequest(f"the schema of the tool {tool.name!r}: {error}") from error
    return found


class Heads:
    """The terminals of the beginnings of calls, up to their arguments."""

    def __init__(self, tools: Sequence[ToolSpec], rules: Rules) -> None:
        """Raises BadRequest for a name that no call can hold."""
        for tool in tools:
            if tool.name and not NAME.fullmatch(tool.name):
                raise BadRequest(
                    f"{tool.name!r:.80} is no name for a tool; "
                    "use up to 64 letters, digits and _ . - / :"
                )
        self._rules = rules
        self._names = "|".join(escaped(tool.name) for tool in tools if tool.name)

    def head(self, tool: ToolSpec, before: str, after: str) -> str:
        """Its name between two regular expressions; any name but the others' when it has none."""
        if tool.name:
            return self._rules.add(f"/{before}{escaped(tool.name)}{after}/", terminal=True)
        others = f" & ~/{before}({self._names}){after}/" if self._names else ""
        return self._rules.add(f"/{before}{ANY_NAME}{after}/{others}", terminal=True)


def bytes_known(tokenizer: Vocabulary) -> bool:
    """Can a grammar be followed token by token? Only some hub tokenizers cannot tell."""
    return bool(getattr(tokenizer, "bytes_known", True))

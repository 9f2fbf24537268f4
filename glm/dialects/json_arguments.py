"""The arguments of a call as one JSON object, as a grammar."""

from __future__ import annotations

from glm.dialects.literals import JSON, Notation
from glm.dialects.offered import forms
from glm.dialects.value_grammar import Rules, Values
from glm.messages import ToolSpec

ANYTHING = {"type": "object", "properties": {}, "additionalProperties": {}}


class JsonArguments:
    """Writes the rules of such objects."""

    def __init__(self, rules: Rules, notation: Notation = JSON) -> None:
        self._rules, self._values = rules, Values(rules, notation)

    def __call__(self, tool: ToolSpec) -> str:
        """The rule of this tool. Raises BadRequest, naming the tool."""
        found = forms(tool)
        return self._rules.either(
            [*map(self._values.value, [ANYTHING] if found is None else found)]
        )

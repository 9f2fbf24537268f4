"""The arguments of a ChatGLM3 call as a fenced block of code, as a grammar.

`tool_call(key=value, ...)` with Python literals, or a JSON object where a key can be no keyword;
the code of the interpreter is free.
"""

from __future__ import annotations

import re
import unicodedata

from glm.dialects.literals import JSON, PYTHON, quoted
from glm.dialects.offered import forms
from glm.dialects.schema import Schema
from glm.dialects.value_grammar import Rules, Values
from glm.messages import ToolSpec

INTERPRETER = "interpreter"
KEY = r"/[A-Za-z_][A-Za-z0-9_\-]{0,63}/"
FENCE = r"/ ?```python\n/"
CODE = r"/ ?```python\n(?s:.*)\n```/"


class CodeArguments:
    """Writes the rules of such blocks."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._python, self._json = Values(rules, PYTHON), Values(rules, JSON)

    def __call__(self, tool: ToolSpec) -> str:
        """The rule of the block of this tool. Raises BadRequest, naming the tool."""
        if tool.name == INTERPRETER:
            return self._rules.add(CODE, terminal=True)
        found = forms(tool)
        bodies = [self._free()] if found is None else [*map(self._keywords, found)]
        return self._rules.add(f'{FENCE} {self._rules.either(bodies)} "\\n```"')

    def _free(self) -> str:
        return self._call(f"({self._open(self._python.anything(), {})})")

    def _keywords(self, schema: Schema) -> str:
        properties = schema["properties"]
        if not all(map(is_keyword, properties)):
            return self._json.value(schema)
        if not properties and schema["additionalProperties"] is not False:
            return self._call(
                self._open(self._python.value(schema["additionalProperties"]), schema)
            )
        return self._call(self._python.pairs(schema, lambda key: quoted(f"{key}=")))

    def _open(self, value: str, schema: Schema) -> str:
        """Any keys with values of this rule."""
        pair = self._rules.add(f'{self._rules.add(KEY, terminal=True)} "=" {value}')
        return self._python.repeated(pair, schema, "Properties")

    def _call(self, inside: str) -> str:
        return self._rules.add(f'"tool_call(" {inside} ")"')


def is_keyword(key: str) -> bool:
    """Can calls.py read `key=value` back as this very key?"""
    plain = key == key.strip() == unicodedata.normalize("NFKC", key)
    return bool(key) and plain and key.isprintable() and not re.search(r"""['"()\[\]{}=,\\]""", key)

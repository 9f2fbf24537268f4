"""The arguments of a call between tags, as GLM-4.5 writes them, as a grammar.

`<arg_key>k</arg_key><arg_value>v</arg_value>`, with or without a newline after each. A string
stands bare, everything else as JSON; where the schema names no type (tagged.py, `typed`), a
string that reads as other JSON cannot be written, and none begins with a bracket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from glm.dialects.calls import NotACall
from glm.dialects.free_text import ANY
from glm.dialects.literals import JSON, quoted, written
from glm.dialects.offered import forms
from glm.dialects.schema import Impossible, Schema
from glm.dialects.tagged import KEY, KEYED, VALUE, VALUED, argument_types, is_text, typed
from glm.dialects.value_grammar import REPEATS, Rules, Values, pattern_and_count
from glm.dialects.vocabulary import Vocabulary
from glm.errors import BadRequest
from glm.messages import ToolSpec

ANY_KEY = r"/[A-Za-z_][A-Za-z0-9_.\-]{0,63}/"
BRACKET = r"\s*[\[{](?s:.*)"
OTHER_JSON = (
    r"\s*(true|false|null|NaN|-?Infinity"
    r"|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+\-]?[0-9]+)?)\s*"
)
UNFIT = r"\s*(NaN|-?Infinity|-?[0-9]{19}(?s:.*)|-?[0-9.]+[eE][+\-]?[0-9]{3,})\s*"
NEWLINE = '"\\n"?'


class TaggedArguments:
    """Writes the rules of such arguments. The vocabulary holds the marks."""

    def __init__(self, rules: Rules, tokenizer: Vocabulary, tools: Sequence[ToolSpec]) -> None:
        self._rules, self._values = rules, Values(rules, JSON)
        self._types = argument_types(tools)
        key, keyed, value, valued = (f"<[{tokenizer.id(m)}]>" for m in (KEY, KEYED, VALUE, VALUED))
        self._form = f"{key} %s {keyed} {NEWLINE} {value} %s {valued} {NEWLINE}"

    def __call__(self, tool: ToolSpec) -> str:
        """The rule of this tool. Raises BadRequest, naming the tool."""
        found, problem = forms(tool), ""
        if found is None:
            return self._open({"additionalProperties": {}})
        rules = []
        for schema in found:
            try:
                rules.append(self._pairs(schema, self._types.get(tool.name, {})))
            except Impossible as error:
                problem = str(error)
        if not rules:
            raise BadRequest(f"the schema of the tool {tool.name!r}: {problem}")
        return self._rules.either(rules)

    def _pairs(self, schema: Schema, types: Mapping[str, Any]) -> str:
        if not schema["properties"] and schema["additionalProperties"] is not False:
            return self._open(schema)
        pairs = ['""']
        for key, value in schema["properties"].items():
            required = key in schema["required"]
            try:
                pairs.append(self._pair(key, value, types.get(key)) + "?" * (not required))
            except Impossible:
                if required:
                    raise
        return self._rules.add(" ".join(pairs))

    def _pair(self, key: str, schema: Schema, kind: Any) -> str:
        if key != key.strip():
            raise Impossible(f"its key {key!r:.60} cannot stand between tags")
        found = [rule for form in schema.get("anyOf", [schema]) for rule in self._value(form, kind)]
        if not found:
            raise Impossible(f"no value of {key!r:.60} can stand between tags")
        return self._rules.add(self._form % (quoted(key), self._rules.either(found)))

    def _open(self, schema: Schema) -> str:
        """Any keys."""
        values = schema["additionalProperties"]
        found = [r for form in values.get("anyOf", [values]) for r in self._value(form, None)]
        most = schema.get("maxProperties")
        if not found:
            raise Impossible("no value of it can stand between tags")
        upper = "" if most is None or most > REPEATS else most
        key = self._rules.add(ANY_KEY, terminal=True)
        pair = self._rules.add(self._form % (key, self._rules.either(found)))
        return f"{pair}{{{min(schema.get('minProperties', 0), REPEATS)},{upper}}}"

    # ---- values --------------------------------------------------------------------------

    def _value(self, schema: Schema, kind: Any) -> list[str]:
        """The rules of a schema without alternatives; none when nothing of it can be written."""
        if "enum" in schema:
            texts = [v if isinstance(v, str) else written(v) for v in schema["enum"]]
            pairs = zip(schema["enum"], texts, strict=True)
            return [quoted(text) for value, text in pairs if _reads(text, kind, value)]
        if schema.get("type") == "string":
            return [self._text(schema, kind)]
        null = ['"null"'] if _reads("null", kind, None) else []
        if not is_text(kind):
            if schema:
                return [self._values.value(schema)]
            limits = f" & ~/{BRACKET}/ & ~/{UNFIT}/"
            text = self._rules.add(f"/{ANY}+/{limits}", terminal=True)
            return [f"{text}?", *self._values.lists_and_objects()]
        if schema:
            return null if schema["type"] == "null" else []
        return [self._text({}, kind), *null]

    def _text(self, schema: Schema, kind: Any) -> str:
        """A string without quotes."""
        pattern, count = pattern_and_count(schema)
        limits = "" if pattern is None else f" & /{pattern}/"
        if not is_text(kind):
            limits += f" & ~/{BRACKET}/ & ~/{OTHER_JSON}/"
        elif _reads("null", kind, None):
            limits += " & ~/null/"
        empty = not schema.get("minLength") and (pattern is None or _matches_nothing(schema))
        text = self._rules.add(f"/{ANY}{count}/ & /{ANY}+/{limits}", terminal=True)
        return f"{text}?" if empty else text


def _matches_nothing(schema: Schema) -> bool:
    return re.search(schema["pattern"], "") is not None


def _reads(text: str, kind: Any, value: Any) -> bool:
    """Is this text read as this value?"""
    try:
        return json.dumps(typed(text, kind)) == json.dumps(value)
    except NotACall:
        return False

"""A grammar of the values that a plain JSON schema accepts, in one notation.

`Rules` collects the rules of one grammar in llguidance's Lark syntax; `Values` adds those of a
schema. Strings may be escaped, numbers are finite; keys come in the order of the schema. Every
text of a rule is read by `glm/dialects/calls.py` as a value that the schema accepts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from glm.dialects.literals import INTEGER, NUMBER, Notation, quoted
from glm.dialects.regular import regular
from glm.dialects.schema import Schema, bounds

REPEATS = 1000  # longer strings and arrays than this are not counted
ANY_DEPTH = 4  # of a value without a schema
FAR = 10**18  # where a number has a bound on one side only


class Rules:
    """The rules of one grammar; equal rules are written once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}  # text -> name

    def text(self) -> str:
        """All rules, one a line."""
        return "\n".join(f"{name}: {text}" for text, name in self._texts.items())

    def add(self, text: str, terminal: bool = False) -> str:
        """The name of a rule with this text."""
        if text not in self._texts:
            self._texts[text] = f"{'T' if terminal else 'r'}{len(self._texts)}"
        return self._texts[text]

    def either(self, names: Sequence[str]) -> str:
        """The name of a rule that is one of these."""
        return self.add(" | ".join(dict.fromkeys(names)))


class Values:
    """The rules of values in a notation."""

    def __init__(self, rules: Rules, notation: Notation) -> None:
        self.rules, self.notation = rules, notation
        self._made: dict[str, str] = {}  # schema -> name

    def value(self, schema: Schema) -> str:
        """The rule of a plain schema."""
        key = json.dumps(schema)
        if key not in self._made:
            self._made[key] = self._value(schema)
        return self._made[key]

    def anything(self, depth: int = ANY_DEPTH) -> str:
        """Any value; arrays and objects down to `depth` levels."""
        words = [self.string(), self._terminal(NUMBER)]
        words += [self.rules.add(self.notation.booleans), self.notation.null]
        return self.rules.either(words + (self.lists_and_objects(depth) if depth else []))

    def lists_and_objects(self, depth: int = ANY_DEPTH) -> list[str]:
        """The rules of any array and of any object."""
        item = self.anything(depth - 1)
        return [self._array_of(item, {}), self._open(item, {})]

    def string(self) -> str:
        """Any string."""
        return self._terminal(" | ".join(map(self.notation.string, self.notation.quotes)))

    def sequence(self, pairs: Sequence[tuple[str, bool]]) -> str:
        """Items in order, separated; (item, must it stand)."""
        tail = first = '""'
        for item, required in reversed(pairs):
            first = f"{item} {tail}" if required else f"{item} {tail} | {first}"
            first = self.rules.add(first)
            after = f"{self.notation.comma} {item}"
            tail = self.rules.add(f"{after if required else f'({after})?'} {tail}")
        return first

    def pairs(self, schema: Schema, written: Callable[[str], str]) -> str:
        """The keys of an object in order; those not required may be left out."""
        made = []
        for key, value in schema["properties"].items():
            pair = self.rules.add(f"{written(key)} {self.value(value)}")
            made.append((pair, key in schema["required"]))
        return self.sequence(made)

    def repeated(self, item: str, schema: Schema, what: str) -> str:
        """Between minItems and maxItems (or minProperties ...) times, separated."""
        fewest, most = min(schema.get(f"min{what}", 0), REPEATS), schema.get(f"max{what}")
        if most == 0:
            return '""'
        upper = "" if most is None or most > REPEATS else most - 1
        more = self.rules.add(f"{self.notation.comma} {item}")
        some = f"{item} {more}{{{max(0, fewest - 1)},{upper}}}"
        return f"({some})" if fewest else f"({some})?"

    def _terminal(self, text: str) -> str:
        return self.rules.add(text, terminal=True)

    def _value(self, schema: Schema) -> str:
        if "anyOf" in schema:
            return self.rules.either([*map(self.value, schema["anyOf"])])
        if "enum" in schema:
            forms = [form for value in schema["enum"] for form in self.notation.forms(value)]
            return self.rules.either([*map(quoted, forms)])
        kinds: dict[str, Callable[[], str]] = {
            "null": lambda: self.notation.null,
            "boolean": lambda: self.rules.add(self.notation.booleans),
            "integer": lambda: self._number(schema),
            "number": lambda: self._number(schema),
            "string": lambda: self._string(schema),
            "array": lambda: self._array(schema),
            "object": lambda: self._object(schema),
        }
        return kinds[schema["type"]]() if "type" in schema else self.anything()

    def _number(self, schema: Schema) -> str:
        whole = schema["type"] == "integer"
        if len(schema) == 1:
            return self._terminal(INTEGER if whole else NUMBER)
        low, high = bounds(schema, whole)
        low = min(-FAR, high - FAR) if low is None else low  # type: ignore[operator]
        high = max(FAR, low + FAR) if high is None else high
        out = {"type": schema["type"], "minimum": low, "maximum": high}
        step = schema.get("multipleOf")
        if whole and isinstance(step, int) and step > 1:
            out["multipleOf"] = step
        return self.rules.add(f"%json {json.dumps(out)}")

    def _string(self, schema: Schema) -> str:
        pattern, count = pattern_and_count(schema)
        if pattern is None and count == "*":
            return self.string()
        quotes = self.notation.quotes
        if pattern is None:
            forms = [self.notation.string(quote, count) for quote in quotes]
        else:
            forms = [self.notation.matching(quote, pattern, count) for quote in quotes]
        return self._terminal(" | ".join(forms))

    def _array(self, schema: Schema) -> str:
        first = schema["prefixItems"][:REPEATS]
        fewest, most = min(schema["minItems"], REPEATS), schema.get("maxItems")
        if not first and schema["items"] is not False:
            return self._array_of(self.value(schema["items"]), schema)
        tail, comma = '""', self.notation.comma
        if schema["items"] is not False and (most is None or most > len(first)):
            upper = "" if most is None or most > REPEATS else most - len(first)
            count = f"{{{max(0, fewest - len(first))},{upper}}}"
            tail = self.rules.add(f"{comma} {self.value(schema['items'])}") + count
        for place, item in reversed([*enumerate(first)][:most]):
            here = f"{comma if place else ''} {self.value(item)} {tail}"
            tail = self.rules.add(here if place < fewest else f"({here})?")
        return self._between(self.notation.brackets, tail)

    def _object(self, schema: Schema) -> str:
        if not schema["properties"] and schema["additionalProperties"] is not False:
            return self._open(self.value(schema["additionalProperties"]), schema)
        forms = []
        for n in range(len(self.notation.quotes)):
            inside = self.pairs(schema, lambda key, n=n: self._key(key, n))  # type: ignore[misc]
            forms.append(self._between(self.notation.braces, inside))
        return self.rules.either(forms)

    def _key(self, key: str, number: int) -> str:
        forms = self.notation.forms(key)
        return f"{quoted(forms[min(number, len(forms) - 1)])} {self.notation.colon}"

    def _open(self, value: str, schema: Schema) -> str:
        """An object of any keys."""
        pair = self.rules.add(f"{self.string()} {self.notation.colon} {value}")
        return self._between(self.notation.braces, self.repeated(pair, schema, "Properties"))

    def _array_of(self, item: str, schema: Schema) -> str:
        return self._between(self.notation.brackets, self.repeated(item, schema, "Items"))

    def _between(self, ends: tuple[str, str], inside: str) -> str:
        return self.rules.add(f"{ends[0]} {inside} {ends[1]}")


def pattern_and_count(schema: Schema) -> tuple[str | None, str]:
    """Of the schema of a string: its pattern as a regular expression, and how many characters."""
    fewest, most = schema.get("minLength", 0), schema.get("maxLength")
    pattern = regular(schema["pattern"]) if "pattern" in schema else None
    upper = "" if most is None or most > REPEATS else most
    count = f"{{{min(fewest, REPEATS)},{upper}}}" if fewest or upper != "" else "*"
    return pattern, count

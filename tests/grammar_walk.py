"""An answer that a random model writes under a constraint, and schemas to constrain it with."""

from __future__ import annotations

import numpy as np


class Walk:
    """An answer that a model writes under a constraint."""

    def __init__(self, made, dialect, tools):
        self.dialect, self.tokenizer = dialect, dialect.tokenizer
        self.constraint = made.calls(dialect, tools)
        self.bits = np.zeros(self.tokenizer.size // 32 + 1, dtype=np.int32)

    def allowed(self):
        """Which ids may follow, as a row of booleans."""
        self.constraint.fill(self.bits)
        octets = self.bits.view(np.uint8)
        return np.unpackbits(octets, count=self.tokenizer.size, bitorder="little").astype(bool)

    def takes(self, *parts):
        """Can the model write these texts (each encoded apart) and control tokens?"""
        return all(self.follows(self.ids(part)) for part in parts)

    def follows(self, ids):
        """Can the model write these ids?"""
        for token in ids:
            if not self.allowed()[token]:
                return False
            self.constraint.accept(token)
        return True

    def ids(self, part):
        """A text, or a control token by its name."""
        if part in self.tokenizer.special or part == "</s>":
            return [self.tokenizer.special.get(part, self.tokenizer.eos)]
        return self.tokenizer.encode(part)

    def random(self, seed, lead=(), limit=600):
        """The ids of a random answer that begins with `lead` and soon ends what it opens; None
        when it was longer than the limit.
        """
        source = np.random.default_rng(seed)
        assert self.takes(*lead), lead
        tokenizer = self.tokenizer
        raw = [tokenizer.raw(i) for i in range(tokenizer.size)]
        ends = np.array([not data or data[:1] in b"'\")]}" for data in raw])
        text = np.array(
            [data is not None and (data.isspace() or b"\n" in data[:2]) for data in raw]
        )
        ids = [i for part in lead for i in self.ids(part)]
        begun = len(ids)
        while len(ids) < limit:
            allowed = self.allowed()
            if len(ids) < begun + 2 and (allowed & ~text).any():
                allowed &= ~text
            logits = source.normal(size=len(raw)) + ends * (4 + (len(ids) - begun) / 20)
            ids.append(int(np.where(allowed, logits, -np.inf).argmax()))
            self.constraint.accept(ids[-1])
            if ids[-1] in self.dialect.stop:
                return ids
        return None


def parsed(dialect, ids, tools=()):
    parser = dialect.parser(tools)
    return [*parser.feed(ids), *parser.finish()]


VALUES = ["a", "it's", '"q"', "\\", "北京\n", 3, 2.5, None, True]


def random_schema(source, depth=3):
    """A schema that some value is valid for."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "any", "several", "union"]
    kind = source.choice(kinds + ["array", "object", "object"] * (depth > 0))
    low = source.randint(-50, 50)
    size = source.randint(0, 4)
    simple = {
        "boolean": {"type": "boolean"},
        "null": {"type": "null"},
        "any": {},
        "enum": {"enum": source.sample(VALUES, 3)},
        "several": {"type": ["string", "null"], "maxLength": 5},
        "integer": {"type": "integer", "minimum": low, "exclusiveMaximum": low + 9},
        "number": {"type": "number", "exclusiveMinimum": low / 4, "maximum": low / 4 + 0.5},
        "string": source.choice(
            [
                {"type": "string"},
                {"type": "string", "minLength": size, "maxLength": size + 3},
                {"type": "string", "pattern": "^[a-z]{2}-\\d+$"},
                {"type": "string", "pattern": "[A-Z]|x", "maxLength": 6},
            ]
        ),
    }
    if kind in simple:
        schema = dict(simple[kind])
        for bound in [key for key in schema if "imum" in key]:
            if source.random() < 0.4:
                del schema[bound]
        return schema
    if kind == "union":
        return {"anyOf": [random_schema(source, depth - 1) for _ in range(2)]}
    if kind == "array":
        first = [random_schema(source, depth - 1) for _ in range(source.randint(0, 2))]
        schema = {"type": "array", "items": random_schema(source, depth - 1)}
        schema |= {"prefixItems": first} if first else {}
        return schema | {"minItems": size, "maxItems": size + 2}
    return random_object(source, depth)


def random_object(source, depth=3):
    keys = source.sample(["a", "b_c", "start-date", "class", "it's", "名", "x y", 'q"'], 4)
    if source.random() < 0.15:
        return {"type": "object", "additionalProperties": random_schema(source, depth - 1)}
    chosen = keys[: source.randint(0, 4)]
    properties = {key: random_schema(source, depth - 1) for key in chosen}
    required = [key for key in properties if source.random() < 0.5]
    return {"type": "object", "properties": properties, "required": required}

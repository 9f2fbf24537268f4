"""Options as dataclass fields: what one is, how its value is read, how a command line names it.

An option is written once, `lr: float = opt(1e-4, "peak learning rate", minimum=1e-7, maximum=1)`.
The command line, the files, the help, the docs table and the page's form come from the fields.
Nothing here raises at the first wrong value: problems are sentences, collected by the caller.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from glm.errors import BadRequest

Kind = Literal["text", "whole", "number", "switch", "list"]
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
KINDS: dict[Any, Kind] = {
    str: "text",
    int: "whole",
    float: "number",
    bool: "switch",
    tuple[str, ...]: "list",
}


class BadConfig(BadRequest):
    """Options that cannot be trained with; `problems` holds a sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = [f"- {problem}" for problem in self.problems]
        super().__init__("\n".join(lines) if len(lines) > 1 else "".join(self.problems))


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `optional`: None is a value too, written `auto`.

    `aliases` are other names of it, `spellings` other words for its values; `percent`: 5% is
    0.05; `commas`: a list may be written a,b,c.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    group: str
    optional: bool = False
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[Any, ...] = ()
    aliases: tuple[str, ...] = ()
    spellings: Mapping[str, Any] = field(default_factory=dict)
    percent: bool = False
    commas: bool = False
    metavar: str = ""

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def allowed(self) -> str:
        """What a value may be, for people; "" when anything goes."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        if self.kind == "switch":
            return "true, false" + (", auto" if self.optional else "")
        low, high = (_edge(edge) for edge in (self.minimum, self.maximum))
        if low and high:
            return f"{low} to {high}"
        return f"from {low} on" if low else ""


def _edge(edge: float) -> str:
    if not math.isfinite(edge):
        return ""
    return f"{edge:.0f}" if edge >= 1 and edge == int(edge) else f"{edge:g}"


@dataclass(frozen=True, slots=True)
class Word:
    """An option as somebody wrote it: the name, the raw value, and where (for the sentences)."""

    name: str
    raw: Any
    source: str


def opt(default: Any, help: str, **about: Any) -> Any:
    """A field with its help; `about` are fields of `Option`."""
    return field(default=default, metadata={"help": help, **about})


@cache
def options(config: type) -> dict[str, Option]:
    """The options of a dataclass by name, in order."""
    kinds = typing.get_type_hints(config)
    return {
        item.name: _option(item, kinds[item.name], _group(config, item.name).__name__)
        for item in dataclasses.fields(config)
    }


def groups(config: type) -> dict[str, str]:
    """The groups of the options, and what each is about."""
    owners = {_group(config, name) for name in options(config)}
    return {
        owner.__name__: (owner.__doc__ or "").strip()
        for owner in reversed(config.__mro__)
        if owner in owners
    }


def _group(config: type, name: str) -> type:
    """The class that declares an option; its name is the group's."""
    return next(owner for owner in config.__mro__ if name in vars(owner).get("__annotations__", {}))


def _option(item: dataclasses.Field[Any], kind: Any, group: str) -> Option:
    optional = isinstance(kind, types.UnionType)
    if optional:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    about = item.metadata
    return Option(item.name, KINDS[kind], item.default, group=group, optional=optional, **about)


@cache
def named(config: type) -> dict[str, Option]:
    """The options by every name they go by."""
    found = options(config)
    names = {alias: option for option in found.values() for alias in option.aliases}
    return {**names, **found}


def normal(name: str) -> str:
    """`--Learning-Rate` and `learning_rate` are one name."""
    return name.strip().lstrip("-").replace("-", "_").lower()


def unknown(config: type, name: str, others: Iterable[str] = ()) -> str:
    """The sentence about a name that is none, with the nearest that is."""
    near = difflib.get_close_matches(normal(name), [*named(config), *others], 1)
    hint = f"did you mean {near[0]}" if near else "--help lists all"
    return f"no option has this name; {hint}"


# ---- values ----


def read_value(option: Option, raw: Any) -> Any:
    """A raw value (text, or what a file held) as the option's type.

    Raises ValueError that says what is allowed.
    """
    word = str(raw).strip().lower()
    if not isinstance(raw, (list, tuple)) and word in option.spellings:
        raw = option.spellings[word]
    elif option.optional and word in ("auto", "none"):
        return None
    value = _READERS[option.kind](option, raw)
    if option.choices and value not in option.choices:
        raise ValueError(f"allowed: {option.allowed}")
    return value


def _text(option: Option, raw: Any) -> str:
    if isinstance(raw, (list, tuple, dict, bool)):
        raise ValueError(f"allowed: {option.allowed}" if option.allowed else "a text is needed")
    return str(raw)


def _whole(option: Option, raw: Any) -> int:
    try:
        value = int(raw) if isinstance(raw, str) else raw
    except ValueError:
        value = None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not _within(option, value):
        if option.choices:
            raise ValueError(f"allowed: {option.allowed}")
        raise ValueError(f"a whole number is needed, {option.allowed}")
    return value


def _number(option: Option, raw: Any) -> float:
    text = str(raw).strip()
    share = option.percent and text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / 100 if share else float(text)
    except ValueError:
        value = math.nan
    if isinstance(raw, bool) or not _within(option, value):
        raise ValueError(f"a number is needed, {option.allowed}")
    return value


def _within(option: Option, value: float) -> bool:
    return math.isfinite(value) and option.minimum <= value <= option.maximum


def _switch(option: Option, raw: Any) -> bool:
    word = str(raw).strip().lower()
    if word not in YES + NO:
        raise ValueError(f"allowed: {option.allowed}")
    return word in YES


def _list(option: Option, raw: Any) -> tuple[str, ...]:
    items = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    if any(isinstance(item, (list, dict)) for item in items):
        raise ValueError("a list of texts is needed")
    texts = [str(item) for item in items]
    if option.commas:
        texts = [part.strip() for text in texts for part in text.split(",")]
    return tuple(text for text in texts if text)


_READERS: dict[Kind, Callable[[Option, Any], Any]] = {
    "text": _text,
    "whole": _whole,
    "number": _number,
    "switch": _switch,
    "list": _list,
}


# ---- the command line ----


def split_flags(argv: Sequence[str]) -> tuple[list[Word], list[str]]:
    """`--name value...`, `--name=value` and `--name` as words, and what stands before any flag.

    A flag takes all values up to the next `--`; -1 is a value. One value comes as a text,
    several as a list, none as True.
    """
    words: list[Word] = []
    loose: list[str] = []
    values: list[str] = []
    for item in argv:
        if item.startswith("--") and len(item) > 2:
            name, equals, value = item.partition("=")
            values = [value] if equals else []
            words.append(Word(name, values, name))
        else:
            (values if words else loose).append(item)
    return [dataclasses.replace(word, raw=_flat(word.raw)) for word in words], loose


def _flat(values: list[str]) -> Any:
    if len(values) > 1:
        return values
    return values[0] if values else True


def positive(config: type, flag: Word) -> Word:
    """`--no-x` of a switch x as x false; other flags as they are.

    Raises ValueError when a value stands after `--no-x`.
    """
    name = normal(flag.name)
    option = named(config).get(name.removeprefix("no_"))
    if name in named(config) or option is None or option.kind != "switch":
        return flag
    if flag.raw is not True:
        raise ValueError(f"{flag.source} takes no value; {flag.raw!r} stands after it")
    return Word(option.name, False, flag.source)


def help_text(config: type, usage: str) -> str:
    """Every option with its help, by groups."""
    lines = [usage, ""]
    group = ""
    for option in options(config).values():
        if option.group != group:
            group = option.group
            lines += ["", f"{group}:"]
        value = "" if option.kind == "switch" else f" {_metavar(option)}"
        no = f" | --no-{option.flag[2:]}" if option.kind == "switch" else ""
        lines.append(f"  {option.flag}{value}{no}")
        lines.append(f"      {option.help} {_details(option)}".rstrip())
    return "\n".join(lines)


def _metavar(option: Option) -> str:
    plain = {"text": "TEXT", "whole": "N", "number": "X", "switch": "", "list": "A B ..."}
    return option.metavar or plain[option.kind]


def _details(option: Option) -> str:
    allowed = option.allowed if option.kind != "switch" else ""
    default = shown(option.default)
    parts = [allowed, f"default {default}" if default else ""]
    inside = "; ".join(part for part in parts if part)
    return f"[{inside}]" if inside else ""


def shown(value: Any) -> str:
    """A value as it is written on a command line; "" for an empty one."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)

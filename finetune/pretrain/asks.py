"""Requests for the built-in tools: a sentence, and the call it asks for.

Skeletons and calls stand in `data/ask_en.txt` and `data/ask_zh.txt`, values come from `words`.
The rules of what the right call is are in CONVENTIONS.md.
"""

from __future__ import annotations

import ast
import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from finetune.pretrain import noise
from finetune.pretrain.grammar import Part, Section, Slot, expand, sections
from finetune.pretrain.words import Words, lists

KEYS = "city|expression|place|value|from_unit|to_unit|low|high|query|name|sql"
MEASURED = {
    "小时",
    "月",
    "星期",
    "世纪",
}  # counted with a measure word, which is no part of the unit
NUMBERS = {"value", "low", "high"}
AGGREGATES = {
    "AVG": ("average|mean|avg", "平均值|平均|均值|平均数"),
    "SUM": ("total|sum of|sum of the|overall", "总和|合计|总额|之和"),
    "MAX": ("maximum|highest|largest|max|biggest", "最大值|最高值|最大|最高"),
    "MIN": ("minimum|lowest|smallest|min|least", "最小值|最低值|最小|最低"),
}
COMPARE = {
    ">": (
        "greater than|above|over|more than|larger than|higher than|bigger than|>",
        "大于|超过|高于|多于|>",
    ),
    "<": ("less than|below|under|smaller than|lower than|fewer than|<", "小于|低于|少于|不到|<"),
    "=": ("equal to|=|of exactly|of", "等于|=|是|为"),
}
Values = dict[str, tuple[str, str]]  # slot -> (as shown, as written in the argument)


@dataclass(frozen=True, slots=True)
class Ask:
    """A sentence of the user and the call that answers it."""

    text: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """One `## tool key=template` section."""

    tool: str
    arguments: tuple[tuple[str, str], ...]
    section: Section


@cache
def forms(chinese: bool) -> dict[str, tuple[Form, ...]]:
    """The sections of a language by tool."""
    out: dict[str, tuple[Form, ...]] = {}
    for section in sections("ask_zh" if chinese else "ask_en"):
        tool, _, rest = section.head.partition(" ")
        if tool.startswith("@"):
            continue
        pieces = re.split(rf"(?:^| )({KEYS})=", rest)
        pairs = tuple(zip(pieces[1::2], pieces[2::2], strict=True))
        out[tool] = (*out.get(tool, ()), Form(tool, pairs, section))
    return out


def ask(tool: str, chinese: bool, rng: random.Random, dev: bool = False) -> Ask:
    """One request for `tool`; with `dev`, from skeletons and words kept out of training."""
    candidates = forms(chinese)[tool]
    if dev:
        candidates = tuple(f for f in candidates if f.section.dev) or candidates
    weights = [len(form.section.train) ** 0.7 for form in candidates]
    form = rng.choices(candidates, weights)[0]
    parts = expand(rng.choice((dev and form.section.dev) or form.section.train), rng)
    if tool in ("get_weather", "get_time") and rng.random() < 0.2:
        parts = followed(parts, chinese, rng)
    words = Words(rng, chinese, dev)
    values = fill(words)
    lower = not chinese and rng.random() < 0.22 and tool in ("get_weather", "get_time")
    shown = [_show(part, values, lower) for part in parts]
    arguments = {key: _argument(key, template, values, lower) for key, template in form.arguments}
    write = noise.chinese if chinese else noise.english
    return Ask(write(shown, rng, dev), tool, arguments)


def followed(parts: list[Part], chinese: bool, rng: random.Random) -> list[Part]:
    """The sentence with a word of time or place after its place name, where one fits."""
    out: list[Part] = []
    for index, part in enumerate(parts):
        out.append(part)
        rest = parts[index + 1] if index + 1 < len(parts) else ""
        if not isinstance(part, Slot) or not isinstance(rest, str):
            continue
        if chinese and not rest.startswith(("的", "呢")):
            out.append(rng.choice(lists()["after_zh"]))
        elif not chinese and rest in ("", "?"):
            out.append(" " + rng.choice(lists()["after_en"]))
    return out


def _show(part: Part, values: Values, lower: bool) -> tuple[str, bool]:
    if isinstance(part, Slot):
        text = values[part.name][0]
        return (text.lower() if lower else text), True
    return part, False


def _argument(key: str, template: str, values: Values, lower: bool) -> Any:
    text = re.sub(r"\{(\w+)\}", lambda match: values[match[1]][1], template)
    if key in NUMBERS:
        return ast.literal_eval(text)
    return text.lower() if lower else text


class Lazy(dict[str, tuple[str, str]]):
    """Values made when a skeleton first names them."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words

    def __missing__(self, name: str) -> tuple[str, str]:
        for group in (_numbers, _units, _names, _tables):
            made = group(name, self.words, self)
            if made is not None:
                self.update(made)
                return self[name]
        raise KeyError(f"no value for the slot {{{name}}}")


def fill(words: Words) -> Values:
    """The values of one sentence."""
    return Lazy(words)


def same(text: str) -> tuple[str, str]:
    return text, text


def _numbers(name: str, words: Words, values: Values) -> Values | None:
    rng = words.rng
    if name in ("a", "b", "e", "x"):
        if words.chance(0.07):
            return {name: words.count()}
        shown = words.number()
        if shown.isdigit() and int(shown) > 999 and not words.chinese and words.chance(0.15):
            return {name: (f"{int(shown):,}", shown)}
        return {name: same(shown)}
    if name in ("n", "k"):
        small = name == "k"
        return {name: same(str(rng.randint(2, 15))) if small else words.count()}
    if name == "price":
        return {name: same(words.price())}
    if name == "p":
        return {
            name: same(rng.choice([str(rng.randint(1, 99)), "5", "10", "15", "20", "7.5", "25"]))
        }
    if name == "z":
        return {name: same(rng.choice([str(rng.randint(1, 9)), "8.5", "7.5", "9.5"]))}
    if name in ("lo", "hi"):
        low = rng.choice(
            [0, 1, 1, 1, rng.randint(2, 99), rng.randint(100, 5000), -rng.randint(1, 50)]
        )
        high = low + rng.choice([5, 9, 10, 49, 99, 100, rng.randint(3, 300), rng.randint(3, 9000)])
        if name == "hi" and low < 2:
            high = rng.choice([6, 8, 10, 12, 20, 30, 50, 100, rng.randint(5, 2000)])
        return {"lo": same(str(low)), "hi": same(str(high))}
    return {name: same(words.expression())} if name == "expr" else None


def _units(name: str, words: Words, values: Values) -> Values | None:
    rng = words.rng
    if name == "v":
        number = (
            words.number()
            if words.chance(0.8)
            else rng.choice(["100", "50", "10", "1", "2.5", "-40"])
        )
        if number.isdigit() and int(number) > 999 and not words.chinese and words.chance(0.2):
            return {name: (f"{int(number):,}", number)}
        small = not words.chinese and words.chance(0.05)
        return {name: words.count() if small else same(number)}
    if name not in ("u", "u0", "u1", "w"):
        return None
    source, target = words.units()
    degrees = {"celsius", "Celsius", "fahrenheit", "Fahrenheit"}
    shown = f"degrees {source}" if source in degrees and words.chance(0.6) else source
    aim = f"degrees {target}" if target in degrees and words.chance(0.25) else target
    if not words.chinese and words.chance(0.06) and shown == source:
        shown = shown.upper() if len(shown) < 4 else shown.capitalize()
        source = shown
    if words.chinese and source in MEASURED and words.chance(0.6):
        shown = f"个{source}"
    tight = shown if len(source) < 5 else f" {shown}"
    return {"u": (shown, source), "u0": (tight, source), "u1": same(source), "w": (aim, target)}


def _names(name: str, words: Words, values: Values) -> Values | None:
    rng = words.rng
    if name in ("city", "city2"):
        return {name: same(words.city())}
    if name == "place":
        return {name: same(words.place())}
    if name == "f":
        return {name: same(words.file())}
    if name not in ("q", "qq"):
        return None
    phrase = words.phrase()
    shown = phrase
    draw = rng.random()
    if words.chinese and draw < 0.35:
        marks = rng.choice(["“”", '""', "''", "「」", "《》"])
        shown = marks[0] + phrase + marks[1]
    elif not words.chinese and draw < 0.3:
        mark = rng.choice(["'", '"', '"', "'"])
        shown = mark + phrase + mark
    elif not words.chinese and draw < 0.48 and phrase.islower():
        shown = (
            f"the {phrase}" if draw < 0.42 else f"the word{'s' if ' ' in phrase else ''} {phrase}"
        )
    return {"qq": (shown, phrase), "q": same(phrase)}


def _tables(name: str, words: Words, values: Values) -> Values | None:
    rng = words.rng
    index = int(words.chinese)
    if name == "t":
        return {name: same(words.table())}
    if name in ("c", "d"):
        return {name: same(words.column())}
    if name == "val":
        return {name: same(words.value())}
    if name == "num":
        return {name: same(words.number())}
    if name in ("agg", "aggw"):
        function = rng.choice(list(AGGREGATES))
        return {
            "agg": same(function),
            "aggw": same(rng.choice(AGGREGATES[function][index].split("|"))),
        }
    if name in ("op", "opw"):
        sign = rng.choice(list(COMPARE))
        return {"op": same(sign), "opw": same(rng.choice(COMPARE[sign][index].split("|")))}
    return {name: same(sql(words))} if name == "sql" else None


def sql(words: Words) -> str:
    """A SELECT statement as a user may paste it."""
    rng = words.rng
    table, one, two = words.table(), words.column(), words.column()
    number, value = words.integer(), words.value().replace("'", "")
    columns = rng.choice(
        [
            "*",
            "COUNT(*)",
            one,
            f"{one}, {two}",
            f"AVG({one})",
            f"SUM({one})",
            f"MAX({one})",
            f"DISTINCT {one}",
        ]
    )
    where = rng.choice(
        [
            "",
            "",
            f" WHERE {two} = '{value}'",
            f" WHERE {two} > {number}",
            f" WHERE {two} < {number}",
            f" WHERE {one} = '{value}' AND {two} > {number}",
        ]
    )
    order = rng.choice(["", "", f" ORDER BY {one}", f" ORDER BY {two} DESC"])
    limit = rng.choice(["", f" LIMIT {rng.randint(1, 50)}"])
    text = f"SELECT {columns} FROM {table}{where}{order}{limit}"
    if words.chance(0.25):
        for keyword in (
            "SELECT",
            "FROM",
            "WHERE",
            "ORDER BY",
            "DESC",
            "LIMIT",
            "COUNT",
            "AVG",
            "SUM",
            "MAX",
            "DISTINCT",
            "AND",
        ):
            text = text.replace(keyword, keyword.lower())
    return text + ";" if words.chance(0.12) else text

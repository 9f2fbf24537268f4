"""A shop's tool convention: rows to teach it, and rows that are held out to see it.

`find_order` takes the number as `SO-` and the digits that the user wrote, and the code of the
language he wrote in; the answer is one line of what was found. Without a number it is asked for;
weather goes to the weather tool, a greeting to none. The sentences are in order_sentences.json;
held-out rows have sentences, numbers and amounts of their own. Always the same rows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TRAIN, HELD_OUT = "train", "held-out"
LANGUAGES = ("en", "zh")
TIMES = 3  # how many rows of each sentence about an order
SENTENCES = json.loads((Path(__file__).parent / "order_sentences.json").read_text("utf-8"))

NEED = {
    "en": "I need the {thing}, so I will call {tool}.",
    "zh": "需要查询{thing}，我将调用 {tool}。",
}
ORDER = {"en": "order", "zh": "订单"}
WEATHER = {"en": "weather", "zh": "天气"}
WHICH = {"en": "Which order number do you mean?", "zh": "请问订单号是多少？"}
STATES = {"en": ("packed", "shipped", "delivered"), "zh": ("已打包", "已发货", "已送达")}
FOUND = {
    "en": "Order {number}: {state}, {total} euros.",
    "zh": "订单 {number}：{state}，{total} 元。",
}
SKY = {"en": ("sunny", "rain", "cloudy"), "zh": ("晴", "小雨", "多云")}
IT_IS = {"en": "In {city} it is {sky} and {warm}.", "zh": "{city}现在{sky}，气温 {warm}。"}


def _tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


FIND_ORDER = _tool(
    "find_order",
    "Look up an order of the shop",
    number={"type": "string", "description": "The order number, such as SO-10000"},
    language={"type": "string", "enum": list(LANGUAGES)},
)
GET_WEATHER = _tool(
    "get_weather",
    "Get the current weather of a city",
    city={"type": "string", "description": "The name of the city"},
)


class Values:
    """Numbers and amounts that no other part has, each given once."""

    def __init__(self, part: str) -> None:
        source, start = random.Random(7), (TRAIN, HELD_OUT).index(part)
        self.numbers = iter(source.sample(range(10000, 100000), 2000)[start::2])
        self.cents = iter(source.sample(range(800, 42000), 2000)[start::2])

    def number(self) -> str:
        return str(next(self.numbers))

    def amount(self) -> str:
        return f"{next(self.cents) / 100:.2f}"


def rows(part: str) -> list[Row]:
    """The rows of a part, mixed."""
    source, values = random.Random(part), Values(part)
    found = [row for language in LANGUAGES for row in _rows(part, language, source, values)]
    source.shuffle(found)
    return found


def write(part: str, file: Path) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows(part))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _rows(part: str, language: str, source: random.Random, values: Values) -> Iterator[Row]:
    sentences = SENTENCES[part][language]
    for sentence in sentences["orders"] * TIMES:
        yield _row(source, *_order(language, sentence, source.choice(STATES[language]), values))
    for sentence in sentences["without"]:
        yield _row(source, _said("user", sentence), _said("assistant", WHICH[language]))
    for sentence, city in sentences["weather"]:
        yield _row(source, *_weather(language, sentence, city, source))
    for sentence, answer in sentences["greetings"]:
        yield _row(source, _said("user", sentence), _said("assistant", answer))


def _order(language: str, sentence: str, state: str, values: Values) -> Iterator[Row]:
    digits, total = values.number(), values.amount()
    number = f"SO-{digits}"
    yield _said("user", sentence.format(n=digits))
    yield _said("assistant", NEED[language].format(thing=ORDER[language], tool="find_order"))
    found = {"number": number, "state": state, "total": total}
    yield _called("find_order", {"number": number, "language": language}, found)
    yield _said("assistant", FOUND[language].format(**found))


def _weather(language: str, sentence: str, city: str, source: random.Random) -> Iterator[Row]:
    sky, warm = source.choice(SKY[language]), f"{source.randint(-9, 35)}°C"
    yield _said("user", sentence.format(city=city))
    yield _said("assistant", NEED[language].format(thing=WEATHER[language], tool="get_weather"))
    seen = {"city": city, "temperature": warm, "weather": sky}
    yield _called("get_weather", {"city": city}, seen)
    yield _said("assistant", IT_IS[language].format(city=city, sky=sky, warm=warm))


def _said(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def _called(tool: str, arguments: Row, found: Row) -> Row:
    return {"role": "tool", "name": tool, "parameters": arguments, "observation": found}


def _row(source: random.Random, *turns: Row) -> Row:
    """A conversation under the shop's tool; of three, and where it is called, one has another."""
    tools = [FIND_ORDER]
    if source.random() < 1 / 3 or any(turn.get("name") == "get_weather" for turn in turns):
        tools.insert(source.randrange(2), GET_WEATHER)
    return {"tools": tools, "conversations": list(turns)}

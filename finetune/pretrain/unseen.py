"""Made-up tools and the dialogues that need them, so that tools never seen have a chance.

A tool has a topic ("wave height"); its name and description hold the topic's words, the user's
sentence too. Half of the topics are pairs of random words. One in four requests fits no tool.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

from finetune.pretrain import noise
from finetune.pretrain.answers import thought
from finetune.pretrain.grammar import DATA, Slot, expand, held_out
from finetune.pretrain.words import Words, common_words
from glm.messages import Message, ToolCall, ToolSpec

SHAPES = [
    "get_{}",
    "query_{}",
    "{}_lookup",
    "find_{}",
    "check_{}",
    "lookup_{}",
    "{}",
    "search_{}",
    "fetch_{}",
    "{}_info",
    "get_{}",
    "show_{}",
    "{}_query",
    "read_{}",
]
ABOUT = {
    False: [
        "Get the {}",
        "Look up the {}",
        "Return the {}",
        "Find the {}",
        "Query the {}",
        "Check the {}",
        "Show the {}",
        "Tells the {}",
    ],
    True: ["查询{}", "获取{}", "返回{}", "查找{}", "查看{}"],
}
KEYS = {
    "city": ("city", "The city", "城市"),
    "name": ("name", "The name", "名称"),
    "id": ("id", "The number", "编号"),
    "item": ("item", "The item", "物品"),
    "place": ("place", "The place", "地点"),
    "person": ("person", "The person", "人名"),
    "word": ("word", "The word", "词语"),
    "product": ("product", "The product", "产品"),
    "company": ("company", "The company", "公司"),
    "keyword": ("keyword", "The keyword", "关键词"),
}
ASKED = {
    False: [
        "[what is|what's|whats|tell me|show me] the {topic} [of|for|in|at] {x}",
        "[give me|find|check|look up|i need] the {topic} [of|for|in|at] {x}",
        "{topic} [of|for|in] {x}[| please]",
        "{x} {topic}",
        "[can|could] you [check|look up|find|tell me|get] the {topic} [of|for|in] {x}?",
        "i [want|need|would like] to know the {topic} [of|for] {x}",
        "do you know the {topic} [of|for|in] {x}?",
        "[please|] [check|query|get|search] {topic} [for|of] {x}",
        "how about the {topic} [of|for] {x}?",
        "[which|what] {topic} does {x} have?",
        "for {x}, [what is|check|i need] the {topic}",
        "i am asking about {x}: [what is|give me] the {topic}",
    ],
    True: [
        "{x}的{topic}[是多少|是什么|怎么样|如何|]？",
        "[查一下|帮我查|查询|请查询|看看|告诉我|请告诉我|我想知道|帮我看看]{x}的{topic}",
        "{x}{topic}",
        "[我想|想]知道{x}的{topic}",
        "{topic}：{x}",
        "[请问|]{x}的{topic}呢？",
        "[能不能|可以]查[一下|]{x}的{topic}？",
    ],
}
NONE_FITS = ("Sorry, none of my tools can do that.", "抱歉，我的工具做不到这件事。")
EXTRA = [
    ("day", "The day, e.g. tomorrow", "日期，如明天"),
    ("language", "The language", "语言"),
    ("unit", "The unit", "单位"),
]


@dataclass(frozen=True, slots=True)
class Topic:
    """What a tool is about, in both languages; `zh` may be empty."""

    en: str
    zh: str
    paired: bool = True  # False: the two names have nothing to do with each other


@dataclass(frozen=True, slots=True)
class Made:
    """A made-up tool: its spec, its topic and its parameters."""

    spec: ToolSpec
    topic: Topic
    key: str
    integer: bool = False


@cache
def topics(dev: bool) -> tuple[Topic, ...]:
    rows = (DATA / "topics.txt").read_text(encoding="utf-8").splitlines()
    pairs = [row.split("|") for row in rows if row and not row.startswith("#")]
    return tuple(Topic(en, zh) for en, zh in pairs if held_out(en, 6) == dev)


def make_topic(rng: random.Random, dev: bool) -> Topic:
    """A topic of the list, or two random words."""
    if rng.random() < 0.4:
        return rng.choice(topics(dev))
    words = common_words()
    en = " ".join(rng.sample(words, rng.choice([1, 2, 2])))
    return Topic(en, Words(rng, True).invented_hanzi(), paired=False)


def make_tool(rng: random.Random, chinese: bool, dev: bool) -> Made:
    """A tool with one required parameter, described in the language given."""
    topic = make_topic(rng, dev)
    slug = topic.en.replace(" ", "_").replace("-", "_").lower()
    name = rng.choice(SHAPES).format(slug)
    if rng.random() < 0.06:
        name = "".join(part.capitalize() for part in name.split("_"))
    shown = topic.zh if chinese else topic.en
    key, said, gesagt = KEYS[rng.choice(list(KEYS))]
    owner = {False: [f" of a {key}", " by " + key, ""], True: [""]}[chinese]
    description = rng.choice(ABOUT[chinese]).format(shown) + rng.choice(owner)
    integer = key == "id" and rng.random() < 0.5
    properties: dict[str, Any] = {
        key: {
            "type": "integer" if integer else "string",
            "description": gesagt if chinese else said,
        }
    }
    if rng.random() < 0.15:
        extra, english, other = rng.choice(EXTRA)
        properties[extra] = {"type": "string", "description": other if chinese else english}
    schema = {"type": "object", "properties": properties, "required": [key]}
    return Made(ToolSpec(name, description, schema), topic, key, integer)


def make_tools(rng: random.Random, dev: bool = False) -> tuple[list[Made], bool]:
    """One to five different tools and the language they are described in."""
    chinese = rng.random() < 0.45
    tools: dict[str, Made] = {}
    for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5])):
        tool = make_tool(rng, chinese, dev)
        tools[tool.spec.name] = tool
    return list(tools.values()), chinese


def dialogue(
    tools: list[Made], rng: random.Random, chinese: bool, dev: bool = False
) -> list[Message]:
    """A request that one of the tools fits, or none, and what follows."""
    words = Words(rng, chinese, dev)
    tool = rng.choice(tools)
    fits = rng.random() < 0.75
    topic = tool.topic if fits else _other(tools, rng, dev)
    value = _value(tool, words)
    text = _sentence(topic.zh if chinese else topic.en, value, rng, chinese, dev)
    if not fits:
        return [Message("user", text), Message("assistant", NONE_FITS[chinese])]
    arguments = {tool.key: int(value) if tool.integer else value}
    need = f"查询{topic.zh}" if chinese else f"the {topic.en}"
    call = ToolCall(tool.spec.name, arguments)
    observation, answer = _result(topic.zh if chinese else topic.en, tool, value, words)
    return [
        Message("user", text),
        Message("assistant", thought(tool.spec.name, need, chinese), calls=(call,)),
        Message("tool", observation, name=tool.spec.name),
        Message("assistant", answer),
    ]


def _other(tools: list[Made], rng: random.Random, dev: bool) -> Topic:
    taken = {tool.topic.en for tool in tools}
    while True:
        topic = make_topic(rng, dev)
        if topic.en not in taken:
            return topic


def _value(tool: Made, words: Words) -> str:
    if tool.integer:
        return str(words.rng.randint(1, 99999))
    if tool.key in ("city", "place"):
        return words.city()
    if tool.key in ("person", "name"):
        return words.local("name") if words.chance(0.6) else words.invented_latin()
    if tool.key == "id":
        return f"{words.rng.choice('ABCDEKMRSTX')}{words.rng.randint(10, 99999)}"
    return words.phrase() if words.chance(0.6) else words.city()


def _sentence(topic: str, value: str, rng: random.Random, chinese: bool, dev: bool) -> str:
    parts = []
    for part in expand(rng.choice(ASKED[chinese]), rng):
        if isinstance(part, Slot):
            parts.append((topic if part.name == "topic" else value, True))
        else:
            parts.append((part, False))
    return (noise.chinese if chinese else noise.english)(parts, rng, dev)


def _result(topic: str, tool: Made, value: str, words: Words) -> tuple[str, str]:
    rng = words.rng
    result = rng.choice(
        [words.number(), words.local("value"), words.invented_latin(), words.price()]
    )
    if rng.random() < 0.06:
        sentence = f"no {tool.key} '{value}' was found"
        said = (
            f"工具报错：{sentence}。"
            if words.chinese
            else f"The tool reported an error: {sentence}."
        )
        return f"Error: {sentence}", said
    key = tool.topic.en.replace(" ", "_")
    data = {tool.key: int(value) if tool.integer else value, key: result}
    shapes = [
        json.dumps(data, ensure_ascii=False),
        json.dumps({key: result}, ensure_ascii=False),
        result,
    ]
    if words.chinese:
        return rng.choice(shapes), f"{value}的{topic}是{result}。"
    return rng.choice(shapes), f"The {topic} of {value} is {result}."

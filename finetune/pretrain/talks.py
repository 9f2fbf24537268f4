"""Turns that need no tool: chat about the app, small talk, refusals, questions back.

Skeletons and answers stand in `data/talk_en.txt` and `data/talk_zh.txt`. What a person says of
himself (a name) is remembered over turns.
"""

from __future__ import annotations

import random
from functools import cache

from finetune.pretrain import noise
from finetune.pretrain.asks import fill
from finetune.pretrain.grammar import Section, Slot, expand, sections
from finetune.pretrain.words import Words

KINDS = {"chat": 0.6, "cannot": 0.28, "missing": 0.12}
DISABLED = (
    "I cannot look that up: no tool for it is switched on.",
    "这个我查不了：没有打开合适的工具。",
)
NAME_IS = {
    False: [
        "my name is {}",
        "i am {}",
        "i'm {}",
        "call me {}",
        "you can call me {}",
        "this is {} speaking",
        "{} is my name",
        "people call me {}",
        "hello, i'm {}",
        "hi, my name is {}",
    ],
    True: [
        "我叫{}",
        "我是{}",
        "我的名字是{}",
        "叫我{}",
        "你可以叫我{}",
        "大家都叫我{}",
        "你好，我叫{}",
        "我名叫{}",
    ],
}
NAME_ASKED = {
    False: [
        "what is my name?",
        "what's my name",
        "do you remember my name?",
        "who am i?",
        "do you know my name?",
        "how am i called?",
        "tell me my name",
        "what did i say my name was?",
        "can you repeat my name?",
    ],
    True: [
        "我叫什么",
        "我叫什么名字？",
        "你记得我的名字吗",
        "我是谁",
        "还记得我叫什么吗？",
        "说出我的名字",
        "我的名字是什么",
        "你知道我是谁吗",
    ],
}


@cache
def by_kind(chinese: bool) -> dict[str, tuple[tuple[str, Section], ...]]:
    """kind -> (answer, section) pairs of a language."""
    out: dict[str, tuple[tuple[str, Section], ...]] = {}
    for section in sections("talk_zh" if chinese else "talk_en"):
        kind, _, answer = section.head.partition(" | ")
        out[kind] = (*out.get(kind, ()), (answer, section))
    return out


def talk(kind: str, chinese: bool, rng: random.Random, dev: bool = False) -> tuple[str, str]:
    """A sentence of the user that needs no tool, and the answer."""
    choices = by_kind(chinese)[kind]
    if dev:
        choices = tuple(c for c in choices if c[1].dev) or choices
    weights = [len(section.train) ** 0.8 for _, section in choices]
    answer, section = rng.choices(choices, weights)[0]
    parts = expand(rng.choice((dev and section.dev) or section.train), rng)
    values = fill(Words(rng, chinese, dev))
    shown = [(values[p.name][0], True) if isinstance(p, Slot) else (p, False) for p in parts]
    return (noise.chinese if chinese else noise.english)(shown, rng, dev), answer


def any_talk(chinese: bool, rng: random.Random, dev: bool = False) -> tuple[str, str]:
    """A turn of any kind, in the usual shares."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    return talk(kind, chinese, rng, dev)


def introduction(name: str, chinese: bool, rng: random.Random) -> list[tuple[str, str]]:
    """The user says a name; maybe later asks for it."""
    said, asked = rng.choice(NAME_IS[chinese]).format(name), rng.choice(NAME_ASKED[chinese])
    if not chinese and rng.random() < 0.6:
        said, asked = said[0].upper() + said[1:], asked[0].upper() + asked[1:]
    if chinese:
        return [(said, f"很高兴认识你，{name}。"), (asked, f"你叫{name}。")]
    return [(said, f"Nice to meet you, {name}."), (asked, f"Your name is {name}.")]


def unknown_name(chinese: bool, rng: random.Random) -> tuple[str, str]:
    """The name is asked for and was never said."""
    asked = rng.choice(NAME_ASKED[chinese])
    return asked, "你还没有告诉我你的名字。" if chinese else "You have not told me your name yet."

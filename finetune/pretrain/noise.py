"""How people really type: capitals, missing marks, slips of the finger, a word before and after.

Works on sentences as lists of text parts and values; values are never changed, except that a
whole sentence may be in lower case when its values allow it.
"""

from __future__ import annotations

import random

from finetune.pretrain.grammar import sections

SHORT = {
    "you": "u",
    "please": "plz",
    "are": "r",
    "what's": "whats",
    "is it": "isit",
    "tomorrow": "tmrw",
}


def extras(chinese: bool, name: str, dev: bool) -> tuple[str, ...]:
    """The `@prefix` or `@suffix` lines of a language."""
    for section in sections("ask_zh" if chinese else "ask_en"):
        if section.head == f"@{name}":
            return section.lines(dev)
    raise KeyError(name)


def english(parts: list[tuple[str, bool]], rng: random.Random, dev: bool = False) -> str:
    """A sentence from (text, is it a value) parts, as an English speaker may type it."""
    texts = [text if value else _slips(text, rng) for text, value in parts]
    first_is_value = parts[0][1]
    body = "".join(texts).strip()
    style = rng.random()
    if style < 0.55 and not first_is_value:
        body = body[0].upper() + body[1:]
        body = body.replace(" i ", " I ").replace(" i'm ", " I'm ")
        body = "I" + body[1:] if body[:2] in ("i ", "i'") else body
    body = _end(body, rng, "?", first_is_value and len(parts) == 1)
    if rng.random() < 0.28:
        prefix = rng.choice(extras(False, "prefix", dev))
        prefix = prefix.capitalize() if style < 0.6 else prefix
        lead = body[0].lower() + body[1:] if not first_is_value and rng.random() < 0.7 else body
        body = f"{prefix} {lead}"
    if rng.random() < 0.2:
        suffix = rng.choice(extras(False, "suffix", dev))
        body = body.rstrip("?.! ") if suffix[0] in ",!" or rng.random() < 0.5 else body
        body += suffix if suffix[0] in ",!" else f" {suffix}"
    return body


def chinese(parts: list[tuple[str, bool]], rng: random.Random, dev: bool = False) -> str:
    """A sentence from (text, is it a value) parts, as a Chinese speaker may type it."""
    half = rng.random() < 0.12
    out = ""
    for index, (text, value) in enumerate(parts):
        if not value and half:
            text = text.replace("，", ",").replace("？", "?").replace("：", ":")
        latin = out and value and text[0].isascii() and text[0].isalnum() and ord(out[-1]) > 0x2000
        if latin and rng.random() < 0.25 and index:
            out += " "
        out += text
    body = _end(out.strip(), rng, "？", parts[-1][1] and len(parts) == 1)
    if rng.random() < 0.25:
        body = rng.choice(extras(True, "prefix", dev)) + body
    if rng.random() < 0.16:
        suffix = rng.choice(extras(True, "suffix", dev))
        body = body.rstrip("？?。") + suffix
    return body


def _end(body: str, rng: random.Random, question: str, bare: bool) -> str:
    draw = rng.random()
    asked = body.endswith(("?", "？"))
    if asked and draw < 0.38:
        return body[:-1]
    if asked and draw < 0.42:
        return body[:-1] + rng.choice([question * 2, "?!", " ?", "…", "??"])
    if not asked and not bare and draw < 0.3:
        return body + ("。" if question == "？" else rng.choice([".", ".", "!"]))
    return body + question if not asked and not bare and draw < 0.36 else body


def _slips(text: str, rng: random.Random) -> str:
    if rng.random() < 0.15:
        text = text.replace("'", "")
    if rng.random() < 0.05:
        for long, short in SHORT.items():
            text = text.replace(f" {long} ", f" {short} ")
    if rng.random() < 0.06:
        words = text.split(" ")
        index = rng.randrange(len(words))
        words[index] = _typo(words[index], rng)
        text = " ".join(words)
    return text


def _typo(word: str, rng: random.Random) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    draw = rng.random()
    if draw < 0.4:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if draw < 0.8 else word[:at] + word[at] + word[at:]

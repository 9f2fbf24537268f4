"""Sentence skeletons: `[a|b|]` chooses, `{slot}` is filled, one skeleton per line of a data file.

`sections(name)` reads `data/<name>.txt`; `expand(line, rng)` writes one sentence as a list of
`Text` and `Slot`. About one skeleton in ten is kept out of training for the dev set.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Slot:
    name: str


@dataclass(frozen=True, slots=True)
class Section:
    """The lines under one `## head`, split into those for training and those for the dev set."""

    head: str
    train: tuple[str, ...]
    dev: tuple[str, ...]

    def lines(self, held_out: bool) -> tuple[str, ...]:
        return self.dev if held_out else self.train


Part = str | Slot
Node = str | Slot | tuple["Node", ...] | list["Node"]  # tuple: in order; list: choose one


def held_out(text: str, one_in: int = 10) -> bool:
    """Is this skeleton or word kept for the dev set? The same answer everywhere, always."""
    return zlib.crc32(text.encode()) % one_in == 0


@cache
def sections(name: str) -> tuple[Section, ...]:
    """The sections of data/<name>.txt in order."""
    found: list[tuple[str, list[str]]] = []
    for line in (DATA / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            found.append((line[3:], []))
        elif line and not line.startswith("#"):
            found[-1][1].append(line)
    out = []
    for head, lines in found:
        dev = [line for line in lines if held_out(line)] if len(lines) > 3 else []
        train = [line for line in lines if line not in dev]
        out.append(Section(head, tuple(train), tuple(dev)))
    return tuple(out)


@cache
def parse(line: str) -> Node:
    """The tree of a skeleton. Raises ValueError when a bracket is not closed."""
    node, rest = _sequence(line, 0)
    if rest != len(line):
        raise ValueError(f"unbalanced bracket in skeleton: {line}")
    return node


def _sequence(line: str, at: int) -> tuple[Node, int]:
    """Parts up to the end, a `|` or a `]` that belongs to an outer choice."""
    parts: list[Node] = []
    text = ""
    while at < len(line) and line[at] not in "|]":
        if line[at] in "[{" and text:
            parts.append(text)
            text = ""
        if line[at] == "[":
            options = []
            while line[at] != "]":
                option, at = _sequence(line, at + 1)
                options.append(option)
                if at >= len(line):
                    raise ValueError(f"unbalanced bracket in skeleton: {line}")
            parts.append(options)
            at += 1
        elif line[at] == "{":
            end = line.index("}", at)
            parts.append(Slot(line[at + 1 : end]))
            at = end + 1
        else:
            text += line[at]
            at += 1
    return (*parts, text), at


def expand(line: str, rng: random.Random) -> list[Part]:
    """One sentence of a skeleton; double spaces that empty choices leave are closed."""
    out: list[Part] = []
    _walk(parse(line), rng, out)
    joined: list[Part] = []
    for part in out:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part:
            joined.append(part)
    return _tidy(joined)


def _walk(node: Node, rng: random.Random, out: list[Part]) -> None:
    if isinstance(node, list):
        _walk(rng.choice(node), rng, out)
    elif isinstance(node, tuple):
        for part in node:
            _walk(part, rng, out)
    else:
        out.append(node)


def _tidy(parts: list[Part]) -> list[Part]:
    tidy: list[Part] = []
    for part in parts:
        if isinstance(part, str):
            while "  " in part:
                part = part.replace("  ", " ")
            for mark in "?.,!":
                part = part.replace(f" {mark}", mark)
        tidy.append(part)
    if tidy and isinstance(tidy[0], str):
        tidy[0] = tidy[0].lstrip(" ,")
    if tidy and isinstance(tidy[-1], str):
        tidy[-1] = tidy[-1].rstrip(" ")
    return [part for part in tidy if part]

"""Packs of dialogues to token batches, through the same renderer as chat.

`Batches(tokenizer).make(seed, share)` gives the batch of one training step; the same arguments
give the same batch, so a run continues exactly where it was killed.
"""

from __future__ import annotations

import json
import random

import torch

from finetune.pretrain.dialogues import Pack, Writer
from finetune.pretrain.model import Batch, Group
from finetune.pretrain.words import Words, common_words
from glm.dialects.chatglm3 import ChatGLM3
from glm.messages import Conversation, Message
from glm.tokenizer import Tokenizer

Row = tuple[list[int], list[bool]]
SPREAD = 1.35  # a group's longest dialogue is at most this much longer than its shortest
CURRICULUM = (
    (0.02, 0.6),
    (0.06, 0.3),
    (0.12, 0.1),
)  # until this share of the run: share of copying


def copying(rng: random.Random) -> tuple[Message, ...]:
    """A short drill: say again what stands between marks, or one of several named values."""
    words = Words(rng, rng.random() < 0.5)
    makers = (words.city, words.file, words.phrase, words.number, words.table, words.expression)
    keys = rng.sample(common_words(), rng.choice([1, 1, 2, 3, 4]))
    values = {key: rng.choice(makers)() for key in keys}
    key = rng.choice(keys)
    if rng.random() < 0.3:
        text = " ".join(rng.choice(makers)() for _ in range(rng.randint(2, 6)))
        return Message("user", f"repeat: {text}"), Message("assistant", text)
    return (
        Message("user", f"{json.dumps(values, ensure_ascii=False)} {key}?"),
        Message("assistant", values[key]),
    )


class Batches:
    """Makes batches with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.dialect = ChatGLM3(tokenizer)
        self.end = tokenizer.id("<|user|>")

    def prompt(self, pack: Pack) -> list[int]:
        """The ids that stand before every dialogue of a pack."""
        system = (Message("system", pack.system),) if pack.system else ()
        return list(self.dialect.prompt(Conversation(system, pack.tools))[:-1])

    def row(self, messages: tuple[Message, ...]) -> Row:
        """Ids and learnt marks of a dialogue; it ends with `<|user|>`, as all turns do."""
        ids: list[int] = []
        learn: list[bool] = []
        pieces = list(self.dialect.render(Conversation(messages)))[1:-1]
        for piece in pieces:
            ids += piece.ids
            learn += [piece.learn] * len(piece.ids)
        return [*ids, self.end], [*learn, True]

    def batch(self, packs: list[Pack]) -> Batch:
        """The packs, their dialogues grouped by length."""
        out = Batch()
        for pack in packs:
            out.prompts.append(torch.tensor(self.prompt(pack)))
            rows = sorted((self.row(d) for d in pack.dialogues), key=lambda row: len(row[0]))
            chunk: list[Row] = []
            for row in rows:
                if chunk and len(row[0]) > SPREAD * len(chunk[0][0]) + 8:
                    out.groups.append(group(len(out.prompts) - 1, chunk))
                    chunk = []
                chunk.append(row)
            out.groups.append(group(len(out.prompts) - 1, chunk))
        return out

    def make(self, seed: str, share: float, size: int = 1) -> Batch:
        """The batch of one step; `share` is how much of the run is done, 0 to 1."""
        rng = random.Random(seed)
        writer = Writer(rng)
        copies = next((part for until, part in CURRICULUM if share < until), 0.0)
        packs = []
        for _ in range(size):
            if rng.random() < copies:
                packs.append(Pack((), "", tuple(copying(rng) for _ in range(30))))
                continue
            packs.append(writer.builtin(18))
            if rng.random() < 0.5:
                kinds = (writer.some, writer.chat, writer.unseen)
                packs.append(rng.choices(kinds, (1.0, 1.2, 1.3))[0](5))
            if rng.random() < 0.04:
                packs.append(writer.builtin(1, long=True))
        return self.batch(packs)


def group(prompt: int, rows: list[Row]) -> Group:
    """Rows padded to the longest."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    learn = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, (row, marks) in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        learn[index, : len(row)] = torch.tensor(marks)
    return Group(prompt, ids, learn)

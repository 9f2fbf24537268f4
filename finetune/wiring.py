"""Where training meets the rows: streams of batches, and the loss of one."""
from __future__ import annotations
import json, random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
import torch
from glm.dialects import DIALECTS
from glm.messages import Conversation, Message
Batch = dict[str, Any]

def tokens_in(batch):
    return int(batch.get("tokens", batch["input_ids"].numel()))

def loss_sum(model, batch):
    labels = batch["labels"]
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")

class Rows:
    def __init__(self, examples, size, seed, rank=0, world=1):
        self.examples, self.size, self.seed, self.rank, self.world = examples, size, seed, rank, world
        self.done = 0  # rows
    @property
    def epoch(self): return self.done / len(self.examples)
    def _row(self, n):
        e, i = divmod(n, len(self.examples))
        order = list(range(len(self.examples))); random.Random(self.seed * 1000003 + e).shuffle(order)
        return self.examples[order[i]]
    def __iter__(self):
        while True:
            group = [self._row(self.done + k) for k in range(self.size * self.world)]
            self.done += len(group)
            yield collate(group[self.rank * self.size:(self.rank + 1) * self.size])
    def state(self): return {"done": self.done}
    def load(self, state): self.done = state["done"]

def collate(rows):
    width = max(len(i) for i, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long); labels = torch.full_like(ids, -100)
    for r, (i, l) in enumerate(rows):
        ids[r, :len(i)] = torch.tensor(i); labels[r, :len(l)] = torch.tensor(l)
    pos = torch.arange(width)[None].expand(len(rows), -1).contiguous()
    return {"input_ids": ids, "labels": labels, "position_ids": pos}

def read(files, dialect):
    out = []
    for f in files:
        for line in Path(f).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            talk = Conversation(tuple(Message(m["role"], m["content"]) for m in row["conversations"]))
            pieces = list(dialect.render(talk))
            out.append(([i for p in pieces for i in p.ids], [i if p.learn else -100 for p in pieces for i in p.ids]))
    return out

"""Greedy decoding of many dialogues under one system prompt with the training network.

For the dev figures during training only; the product decodes with `glm`.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.pretrain.model import Batch, Block, Group, Network, attend, flatten


class Cache:
    """Keys and values of one block, (B, groups, slots, 64); slots after `at` are free."""

    def __init__(self, rows: int, slots: int, net: Network) -> None:
        shape = net.shape
        size = (rows, shape.groups, slots, shape.head_width)
        device = net.embedding.weight.device
        self.key, self.value = torch.zeros(size, device=device), torch.zeros(size, device=device)

    def fill(self, key: Tensor, value: Tensor, prompt: int, width: int) -> None:
        """Takes what the prompt and the padded rows left."""
        for own, new in ((self.key, key), (self.value, value)):
            rows = own.shape[0]
            own[:, :, :prompt] = new[:prompt].transpose(0, 1)
            tail = new[prompt:].view(rows, width, *new.shape[1:])
            own[:, :, prompt : prompt + width] = tail.transpose(1, 2)


@torch.no_grad()
def greedy(
    net: Network, prompt: list[int], rows: list[list[int]], stop: Collection[int], limit: int = 160
) -> list[list[int]]:
    """The ids each row goes on with, up to and with its stop id, at most `limit`."""
    device = net.embedding.weight.device
    lengths = torch.tensor([len(row) for row in rows], device=device)
    width = int(lengths.max())
    padded = torch.zeros(len(rows), width, dtype=torch.long, device=device)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, device=device)
    batch = Batch([torch.tensor(prompt, device=device)], [Group(0, padded, padded > 0)])
    slots = len(prompt) + width + limit
    caches = [Cache(len(rows), slots, net) for _ in net.blocks]
    ids, places = flatten(batch)
    x = net.embedding(ids)
    for block, cache in zip(net.blocks, caches, strict=True):
        assert isinstance(block, Block)
        query, key, value = net.before(x, block, net.cos[places], net.sin[places])
        cache.fill(key, value, len(prompt), width)
        x = net.after(x, attend(query, key, value, batch), block)
    at = len(prompt) + lengths  # the slot the next token goes to, per row
    last = len(prompt) + torch.arange(len(rows), device=device) * width + lengths - 1
    token = _best(net, x[last])
    out: list[list[int]] = [[] for _ in rows]
    done = [False] * len(rows)
    for _ in range(limit):
        for index, value in enumerate(token.tolist()):
            if not done[index]:
                out[index].append(value)
                done[index] = value in stop
        if all(done):
            break
        token = _best(net, _advance(net, token, at, caches))
        at = at + 1
    return out


def _best(net: Network, x: Tensor) -> Tensor:
    shape = net.shape
    return net.logits(F.rms_norm(x, (shape.width,), net.norm, shape.eps)).argmax(-1)


def _advance(net: Network, token: Tensor, at: Tensor, caches: list[Cache]) -> Tensor:
    """Hidden states after one more token per row, written to the slots `at`."""
    at = at.clamp(max=caches[0].key.shape[2] - 1)
    rows = torch.arange(len(token), device=token.device)
    mask = torch.arange(caches[0].key.shape[2], device=token.device) <= at[:, None]
    x = net.embedding(token)
    for block, cache in zip(net.blocks, caches, strict=True):
        query, key, value = net.before(x, block, net.cos[at], net.sin[at])
        cache.key[rows, :, at], cache.value[rows, :, at] = key, value
        mixed = F.scaled_dot_product_attention(
            query[:, :, None],
            cache.key,
            cache.value,
            attn_mask=mask[:, None, None],
            enable_gqa=True,
        )
        x = net.after(x, mixed.flatten(1), block)
    return x

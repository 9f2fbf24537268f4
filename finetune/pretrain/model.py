"""The embedded model's network for training: ChatGLM3's architecture on shared system prompts.

RMSNorm, rotary embedding (interleaved pairs) on half of each head, qkv bias, SwiGLU, grouped
keys. A `Batch` holds system prompts and the dialogues under each of them; a system prompt is
computed once and every dialogue attends to it and to itself. `start` sets heads that look at the
previous token and heads that copy (Olsson et al. 2022, "In-context learning and induction
heads"): it saves millions of tokens. Inference is not here: the exported folder opens in `glm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; all widths are multiples of 64."""

    vocab: int = 6656
    layers: int = 4
    width: int = 256
    heads: int = 4
    groups: int = 2
    head_width: int = 64
    ffn: int = 704
    eps: float = 1e-5
    context: int = 4096


@dataclass(slots=True)
class Group:
    """Dialogues of about one length under one system prompt, padded at the right."""

    prompt: int  # index of the system prompt
    ids: Tensor  # (B, T)
    learn: Tensor  # (B, T): how much the token at t counts, 0 where it is not learnt


@dataclass(slots=True)
class Batch:
    prompts: list[Tensor] = field(default_factory=list)  # each (P,), at least one token
    groups: list[Group] = field(default_factory=list)

    def to(self, device: str) -> Batch:
        groups = [Group(g.prompt, g.ids.to(device), g.learn.to(device)) for g in self.groups]
        return Batch([p.to(device) for p in self.prompts], groups)


def rotary(context: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (context, width / 2)."""
    rates = 1.0 / (10000.0 ** (torch.arange(0, width, 2).float() / width))
    angles = torch.outer(torch.arange(context).float(), rates)
    return angles.cos(), angles.sin()


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, heads, groups, head = shape.width, shape.heads, shape.groups, shape.head_width
        self.shape = shape
        self.norm_in = nn.Parameter(torch.ones(width))
        self.norm_out = nn.Parameter(torch.ones(width))
        self.qkv = nn.Linear(width, (heads + 2 * groups) * head)
        self.dense = nn.Linear(heads * head, width, bias=False)
        self.up = nn.Linear(width, 2 * shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, width, bias=False)


def before(x: Tensor, block: Block, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (N, heads, 64), keys and values (N, groups, 64) of all tokens x (N, width)."""
    s = block.shape
    y = F.linear(F.rms_norm(x, (s.width,), block.norm_in, s.eps), block.qkv.weight, block.qkv.bias)
    y = y.view(x.shape[0], s.heads + 2 * s.groups, s.head_width)
    turned, value = y[:, : s.heads + s.groups], y[:, s.heads + s.groups :]
    half = cos.shape[-1] * 2
    c, n = cos[:, None], sin[:, None]
    even, odd = turned[..., 0:half:2], turned[..., 1:half:2]
    pairs = torch.stack((even * c - odd * n, odd * c + even * n), -1).flatten(-2)
    turned = torch.cat((pairs, turned[..., half:]), -1)
    return turned[:, : s.heads], turned[:, s.heads :], value


def after(x: Tensor, mixed: Tensor, block: Block) -> Tensor:
    """The rest of a block: output projection and SwiGLU, both added to x."""
    s = block.shape
    x = x + F.linear(mixed, block.dense.weight)
    gate, up = F.linear(F.rms_norm(x, (s.width,), block.norm_out, s.eps), block.up.weight).chunk(
        2, -1
    )
    return x + F.linear(F.silu(gate) * up, block.down.weight)


class Network(nn.Module):
    """Embedding (also the output layer while training), blocks, final norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.width))
        cos, sin = rotary(shape.context, shape.head_width // 2)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.before: Callable[..., tuple[Tensor, Tensor, Tensor]] = before
        self.after: Callable[..., Tensor] = after

    def compile(self) -> None:  # type: ignore[override]
        """Compiles the parts around attention for any number of tokens."""
        self.before = torch.compile(before, dynamic=True)
        self.after = torch.compile(after, dynamic=True)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(weighted mean loss, share right) over the learnt tokens of a batch."""
        index, targets, weights = learnt(batch)
        logits = self.logits(self.hidden(batch, index)).float()
        right = (logits.argmax(-1) == targets).float().mean()
        losses = F.cross_entropy(logits, targets, reduction="none")
        return (losses * weights).sum() / weights.sum(), right

    def hidden(self, batch: Batch, index: Tensor) -> Tensor:
        """Final hidden states at the flat positions `index` of `batch`, (len(index), width)."""
        ids, positions = flatten(batch)
        x = self.embedding(ids)
        cos, sin = self.cos[positions].to(x.dtype), self.sin[positions].to(x.dtype)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            query, key, value = self.before(x, block, cos, sin)
            mixed = attend(query, key, value, batch)
            if number == last:
                x, mixed = x[index], mixed[index]
            x = self.after(x, mixed, block)
        return F.rms_norm(x, (self.shape.width,), self.norm, self.shape.eps)


def flatten(batch: Batch) -> tuple[Tensor, Tensor]:
    """Ids and positions of all prompts, then of all groups, as one row (N,)."""
    ids = [*batch.prompts, *(group.ids.flatten() for group in batch.groups)]
    device = ids[0].device
    places = [torch.arange(len(prompt), device=device) for prompt in batch.prompts]
    for group in batch.groups:
        start = len(batch.prompts[group.prompt])
        rows, width = group.ids.shape
        places.append(torch.arange(start, start + width, device=device).repeat(rows))
    return torch.cat(ids), torch.cat(places)


def learnt(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Flat positions whose next token is learnt, those next tokens, and their weights."""
    offset = sum(len(prompt) for prompt in batch.prompts)
    index, targets, weights = [], [], []
    for group in batch.groups:
        width = group.ids.shape[1]
        rows, columns = group.learn[:, 1:].nonzero(as_tuple=True)
        index.append(offset + rows * width + columns)
        targets.append(group.ids[rows, columns + 1])
        weights.append(group.learn[rows, columns + 1])
        offset += group.ids.numel()
    return torch.cat(index), torch.cat(targets), torch.cat(weights)


def attend(query: Tensor, key: Tensor, value: Tensor, batch: Batch) -> Tensor:
    """Attention of every prompt to itself, of every dialogue to its prompt and itself."""
    repeat = query.shape[1] // key.shape[1]
    out, at, kept = [], 0, []
    for prompt in batch.prompts:
        end = at + len(prompt)
        k, v = (t[at:end].repeat_interleave(repeat, 1).transpose(0, 1) for t in (key, value))
        q = query[at:end].transpose(0, 1)
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        out.append(mixed.transpose(0, 1).flatten(1))
        kept.append((k, v))
        at = end
    for group in batch.groups:
        rows, width = group.ids.shape
        end = at + rows * width
        own = [t[at:end].view(rows, width, -1, t.shape[-1]) for t in (query, key, value)]
        q, k, v = (t.transpose(1, 2) for t in own)
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        before_k, before_v = (t[None].expand(rows, -1, -1, -1) for t in kept[group.prompt])
        start = before_k.shape[2]
        mask = torch.ones(width, start + width, dtype=torch.bool, device=q.device).tril(start)
        mixed = F.scaled_dot_product_attention(
            q, torch.cat((before_k, k), 2), torch.cat((before_v, v), 2), attn_mask=mask
        )
        out.append(mixed.transpose(1, 2).reshape(rows * width, -1))
        at = end
    return torch.cat(out)


# ---- start ---------------------------------------------------------------------------------


@torch.no_grad()
def start(net: Network, seed: int = 0, sharp: float = 8.0, scale: float = 0.5) -> None:
    """Initial weights with working copy circuits; everything else is small and random."""
    generator = torch.Generator().manual_seed(seed)
    shape = net.shape
    for name, weight in net.named_parameters():
        if name == "embedding.weight":
            weight.normal_(0, scale, generator=generator)
        elif weight.dim() == 2:
            small = 0.2 * 0.5 if "dense" in name or "down" in name else 1.0
            weight.normal_(0, small / math.sqrt(weight.shape[1]), generator=generator)
        elif name.endswith("bias"):
            weight.zero_()
    net.norm.fill_(2.0 / (scale * math.sqrt(shape.width)))
    _look_back(net, generator, sharp, scale)


def _look_back(net: Network, generator: torch.Generator, sharp: float, scale: float) -> None:
    """Block 0: heads at the tokens 1 and 2 back. Block 1: heads that find what followed before."""
    s = net.shape
    head, half, share = s.head_width, s.head_width // 2, s.heads // s.groups
    first, second = net.blocks[0], net.blocks[1]
    basis = torch.linalg.qr(torch.randn(s.width, s.width, generator=generator))[0]

    def part(kind: int, index: int) -> slice:  # kind 0 query, 1 key, 2 value
        at = (0, s.heads, s.heads + s.groups)[kind] + index
        return slice(at * head, (at + 1) * head)

    for group in range(s.groups):
        first.qkv.weight[part(1, group)] *= 0.1
        first.qkv.bias[part(1, group)][:half] = _phase(0, half, sharp)
        first.qkv.weight[part(2, group)] = basis[:, group * head : (group + 1) * head].T
        for step in range(share):
            number = group * share + step
            first.qkv.weight[part(0, number)] *= 0.1
            first.qkv.bias[part(0, number)][:half] = _phase(1 + step, half, sharp)
            random = torch.randn(s.width, head, generator=generator)
            spread = torch.linalg.qr(random)[0] * (scale if step == 0 else scale / 2)
            first.dense.weight[:, number * head : (number + 1) * head] = spread
    for group in range(s.groups):
        number = group * share
        wrote = first.dense.weight[:, number * head : (number + 1) * head]
        read = first.qkv.weight[part(2, group)]
        key, query = torch.zeros(head, s.width), torch.zeros(head, s.width)
        key[half:] = (wrote.T / wrote.norm(dim=0)[:, None])[: head - half]
        query[half:] = read[: head - half]
        for kind, index, matrix in ((1, group, key), (0, number, query)):
            rows = part(kind, index)
            second.qkv.weight[rows] = matrix * math.sqrt(8.0) + 0.2 * second.qkv.weight[rows]
        columns = slice((group + 2) * head % s.width, (group + 2) * head % s.width + head)
        second.qkv.weight[part(2, group)] = basis[:, columns].T
        second.dense.weight[:, number * head : (number + 1) * head] = basis[:, columns] * scale


def _phase(back: int, half: int, sharp: float) -> Tensor:
    """A bias on the rotary dimensions that attends to the token `back` places before."""
    rates = 1.0 / (10000.0 ** (torch.arange(0, half, 2).float() / half))
    out = torch.zeros(half)
    for pair in range(min(6, half // 2)):
        angle = -back * rates[pair].item()
        out[2 * pair], out[2 * pair + 1] = sharp * math.cos(angle), sharp * math.sin(angle)
    return out

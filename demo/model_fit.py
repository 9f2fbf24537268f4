"""Will a model fit: what it needs in 16, 8 and 4 bit, and what is free. Plain arithmetic.

An estimate from the config: weights, plus the keys and values of a conversation. What a device
needs beside that is taken as a twentieth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from glm.memory import Memory

Verdict = Literal["fits", "instead", "no"]
BITS: tuple[int | None, ...] = (None, 8, 4)
BYTES = {32: 4.0, 16: 2.0, 8: 1.0, 4: 0.52}  # of a number; 4 bit has scales beside it
SMALL = 300_000_000  # below this many parameters the numbers stay in 32 bit on a CPU
ROOM = 1.05
USUAL = 12  # of so many parameters one belongs to the embedding or the head, in 6 to 9 B models


@dataclass(frozen=True, slots=True)
class Fit:
    """One way to open a model. `bits` as in `Opening`, `width` for people; `problem` says why
    this way is not offered. "instead": it fits where the present model's memory is free."""

    bits: int | None
    width: int
    bytes: int
    verdict: Verdict
    problem: str = ""


def fits(
    parameters: int, config: Mapping[str, Any], memory: Memory, packed: int | None = None
) -> list[Fit]:
    """The ways to open a model of so many parameters; one alone for a packed checkpoint."""
    if packed:
        return [_fit(None, packed, need(parameters, config, packed), memory)]
    plain = 32 if parameters < SMALL and not memory.device_total else 16
    return [
        _fit(bits, bits or plain, need(parameters, config, bits or plain), memory) for bits in BITS
    ]


def need(parameters: int, config: Mapping[str, Any], width: int) -> int:
    """Bytes of the weights; below 16 bit the embedding and the head keep 16."""
    if width >= 16:
        return int(parameters * BYTES[width])
    whole = min(parameters, embedding(config)) or parameters // USUAL
    return int((parameters - whole) * BYTES[width] + whole * BYTES[16])


def embedding(config: Mapping[str, Any]) -> int:
    """How many numbers the embedding and the output head have."""
    rows = config.get("padded_vocab_size") or config.get("vocab_size") or 0
    both = 1 if config.get("tie_word_embeddings") else 2
    return both * int(rows) * int(config.get("hidden_size") or 0)


def token_bytes(config: Mapping[str, Any]) -> int:
    """What one token of a conversation takes in 16 bit; 0 where the config does not tell."""
    layers = config.get("num_layers") or config.get("num_hidden_layers") or 0
    heads = config.get("num_attention_heads") or 0
    groups = config.get("multi_query_group_num") or config.get("num_key_value_heads") or heads
    hidden = config.get("hidden_size") or 0
    size = config.get("kv_channels") or config.get("head_dim") or (hidden // heads if heads else 0)
    return 2 * 2 * int(layers) * int(groups) * int(size)


def free(memory: Memory) -> int:
    """Where a model would go: the accelerator where there is one, else the machine."""
    return memory.device_free if memory.device_total else memory.free


def _fit(bits: int | None, width: int, bytes: int, memory: Memory) -> Fit:
    wanted = bytes * ROOM
    if wanted <= free(memory):
        return Fit(bits, width, bytes, "fits")
    return Fit(bits, width, bytes, "instead" if wanted <= free(memory) + memory.model else "no")

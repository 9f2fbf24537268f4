"""The adapters that a model in this process answers with, each a seat that requests hold on to.

A key is the version of an adapter (the manager makes a new one for every load), or two joined by
"+": one LoRA and one prefix. Removing an adapter only takes its seat off the list; what it holds in
the stacks is given free when the last request that has it is gone.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any

import torch

from glm.adapters.values import Adapter, Prefix
from glm.errors import AdapterGone, BadRequest, EngineError
from glm.scheduler.lora_bank import CLOSED, LoraBank

JOIN = "+"


class Seat:
    """What a row computes with: `row` of the bank (0 is none), and a prefix or None."""

    __slots__ = ("__weakref__", "key", "parts", "prefix", "row")

    def __init__(self, key: str | None = None, row: int = 0, prefix: Prefix | None = None) -> None:
        self.key, self.row, self.prefix = key, row, prefix
        self.parts: tuple[Seat, ...] = ()  # the seats it is made of, which live as long

    @property
    def offset(self) -> int:
        """How many columns of the cache stand before the first token."""
        return self.prefix.tokens if self.prefix is not None else 0


NOBODY = Seat()


class Seats:
    """All seats of one engine; thread-safe."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.config = model.config
        self.model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.bank = LoraBank(model)
        self._seats: OrderedDict[str, Seat] = OrderedDict()
        self._joined: weakref.WeakValueDictionary[str, Seat] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def add(self, key: str, adapter: Adapter) -> None:
        """Make an adapter ready. Raises BadRequest when it does not fit the model, EngineError
        after `close`.
        """
        prefix = adapter.prefix and self._fitting(adapter.prefix)
        row = self.bank.put(adapter.lora) if adapter.lora else 0
        seat = Seat(key, row, prefix)
        if row:
            weakref.finalize(seat, self.bank.take, row)
        with self._lock:
            self._seats[key] = seat

    def remove(self, key: str) -> None:
        """New requests cannot have it any more; requests that do keep it."""
        with self._lock:
            self._seats.pop(key, None)

    def get(self, key: str | None) -> Seat:
        """The seat of a request. Raises AdapterGone when there is none of that key."""
        if key is None:
            return NOBODY
        with self._lock:
            names = key.split(JOIN)
            missing = [name for name in names if name not in self._seats]
            if missing:
                known = ", ".join(self._seats) or "none"
                raise AdapterGone(f"no adapter {missing[0]!r} is loaded; there is {known}")
            if len(names) == 1:
                return self._seats[key]
            found = self._joined.get(key)
            parts = tuple(self._seats[name] for name in names)
            if found is None or found.parts != parts:
                found = self._joined[key] = _joined(key, parts)
            return found

    def close(self) -> None:
        """Let go of the model and of all adapters."""
        self.bank.close()
        self._model = None
        with self._lock:
            self._seats.clear()

    def bytes(self) -> int:
        """Memory that the adapters take."""
        with self._lock:
            prefixes = [s.prefix for s in self._seats.values() if s.prefix is not None]
        return self.bank.bytes() + sum(
            t.numel() * t.element_size() for p in prefixes for t in (p.keys, p.values)
        )

    def _fitting(self, prefix: Prefix) -> Prefix:
        """The prefix in the model's number type, on its device."""
        model = self._model
        if model is None:
            raise EngineError(CLOSED)
        have, want = tuple(prefix.keys.shape), cache_shape(self.config)
        if (have[0], have[1], have[3]) != want:
            raise BadRequest(
                "the prefix has {} layers, {} heads of {}; the model has {} layers, "
                "{} heads of {}".format(have[0], have[1], have[3], *want)
            )
        like = {"dtype": model.dtype, "device": model.device}
        return Prefix(prefix.keys.to(**like), prefix.values.to(**like))


def cache_shape(config: Any) -> tuple[int, int, int]:
    """(layers, heads, head dim) of the keys that a model keeps."""
    heads = config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, dim


def _joined(key: str, parts: tuple[Seat, ...]) -> Seat:
    loras = [part.row for part in parts if part.row]
    prefixes = [part.prefix for part in parts if part.prefix is not None]
    if len(loras) > 1 or len(prefixes) > 1:
        kind = "LoRAs" if len(loras) > 1 else "prefixes"
        raise BadRequest(f"{key}: two {kind} cannot answer together; one LoRA and one prefix can")
    seat = Seat(key, loras[0] if loras else 0, prefixes[0] if prefixes else None)
    seat.parts = parts
    return seat


def begun(prefix: Prefix, count: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of each layer, (count, heads, tokens, head dim)."""
    return [
        (k.expand(count, *k.shape), v.expand(count, *v.shape))
        for k, v in zip(prefix.keys, prefix.values, strict=True)
    ]

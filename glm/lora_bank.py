"""Many LoRA adapters beside one loaded model: stacked, chosen per row of a step by an index.

Every linear module that some adapter changes gets a stack of A and B matrices; row 0 of a stack is
nothing. A step says which row each of its sequences uses (`use`), and a hook adds the update to the
module's output, so the weights stay untouched and quantised modules work as well. Choosing an
adapter is an index, whatever their number. A DoRA is a scale of the output beside it.

Thread-safe: adapters come and go while the worker computes; it never reads a row that changes.
Source of the idea: S-LoRA (arXiv:2311.03285), in plain batched matrix products.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from glm.adapters.values import LoraPart
from glm.errors import BadRequest, EngineError

CLOSED = "the engine is closed"
ROUND = 8  # ranks are padded to multiples of this
FIRST = 4  # rows of a new stack; it doubles when it is full


class Stack:
    """The adapters of one module: `a` (n, in, r), `b` (n, r, out), and `gain` (n, out) - 1."""

    def __init__(self, module: Any, like: torch.Tensor) -> None:
        self.module = module
        self.inputs, self.outputs = module.in_features, module.out_features
        self._like = like
        self._pair = self._zeros(FIRST, self.inputs, ROUND), self._zeros(FIRST, ROUND, self.outputs)
        self.gain: torch.Tensor | None = None
        self._gathered: tuple[Any, tuple[torch.Tensor, ...]] = (None, ())

    @property
    def a(self) -> torch.Tensor:
        return self._pair[0]

    @property
    def b(self) -> torch.Tensor:
        return self._pair[1]

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self._like.dtype, device=self._like.device)

    def put(self, row: int, part: LoraPart) -> None:
        """Write an adapter's part into a row that nobody reads."""
        rank = part.a.shape[0]
        self._reserve(row + 1, rank)
        self.a[row].zero_()
        self.b[row].zero_()
        self.a[row, :, :rank] = part.a.T.to(self.a)
        update = part.b.float() * part.scale
        if part.magnitude is not None:
            gain = part.magnitude.float().to(update.device) / self._lengths(part)
            update = update * gain[:, None]
            if self.gain is None:
                self.gain = self._zeros(len(self.a), self.outputs)
            self.gain[row] = (gain - 1).to(self.gain)
        elif self.gain is not None:
            self.gain[row].zero_()
        self.b[row, :rank] = update.T.to(self.b)
        self._gathered = (None, ())

    def clear(self, row: int) -> None:
        """An adapter without this module took the row."""
        if row < len(self.a):
            self.a[row].zero_()
            self.b[row].zero_()
            if self.gain is not None:
                self.gain[row].zero_()
            self._gathered = (None, ())

    def _lengths(self, part: LoraPart) -> torch.Tensor:
        """The length of each row of weight + update (out,), in fp32."""
        weight = dense_weight(self.module).float()
        update = (part.b.float() @ part.a.float()) * part.scale
        return torch.linalg.vector_norm(weight + update.to(weight.device), dim=1).to(part.b.device)

    def _reserve(self, rows: int, rank: int) -> None:
        count, width = len(self.a), self.a.shape[2]
        if rows <= count and rank <= width:
            return
        count = count if rows <= count else max(2 * count, rows)
        width = max(width, -(-rank // ROUND) * ROUND)
        a, b = self._zeros(count, self.inputs, width), self._zeros(count, width, self.outputs)
        a[: len(self.a), :, : self.a.shape[2]] = self.a
        b[: len(self.b), : self.b.shape[1]] = self.b
        if self.gain is not None:
            gain = self._zeros(count, self.outputs)
            gain[: len(self.gain)] = self.gain
            self.gain = gain
        self._pair = a, b  # at once: the worker may be reading

    def add(self, x: torch.Tensor, y: torch.Tensor, rows: tuple[int, ...]) -> torch.Tensor:
        """The module's output `y` (B, T, out) for input `x` (B, T, in), with the updates."""
        key, parts = self._gathered
        if key != rows:
            parts = self._gather(rows)
            self._gathered = (rows, parts)
        a, b, *gain = parts
        if gain:
            bias = getattr(self.module, "bias", None)
            y = y + gain[0] * (y if bias is None else y - bias)
        if a.dim() == 2:
            return y + (x.to(a.dtype) @ a @ b).to(y.dtype)
        # The products of a batch of one position are exact copies of those of a single row.
        return torch.baddbmm(y.to(b.dtype), torch.bmm(x.to(a.dtype), a), b).to(y.dtype)

    def _gather(self, rows: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """The matrices of these rows; one of each where all are the same."""
        (a, b), gain = self._pair, self.gain
        top = len(a)
        here = [row if row < top else 0 for row in rows]
        if len(set(here)) == 1:
            out = [a[here[0]], b[here[0]]]
            return (*out, gain[here[0]]) if gain is not None else tuple(out)
        index = torch.tensor(here, device=a.device)
        out = [a[index], b[index]]
        return (*out, gain[index][:, None]) if gain is not None else tuple(out)


class LoraBank:
    """The adapters of one model. `rows` maps nothing: a row is a number that `put` gave."""

    def __init__(self, model: nn.Module) -> None:
        self._model: nn.Module | None = model
        self._stacks: dict[str, Stack] = {}
        self._hooks: list[RemovableHandle] = []
        self._free: list[int] = []
        self._count = 1  # row 0 is no adapter
        self._rows: tuple[int, ...] | None = None
        # Re-entrant: garbage that is collected within may be a seat, which gives its row free.
        self._lock = threading.RLock()

    def put(self, parts: Mapping[str, LoraPart]) -> int:
        """Take an adapter in; its row. Raises BadRequest, naming the module that does not fit, and
        EngineError after `close`.
        """
        with self._lock:
            model = self._model
            if model is None:
                raise EngineError(CLOSED)
            _check(model, parts)
            row = self._free.pop() if self._free else self._count
            self._count = max(self._count, row + 1)
            try:
                for name, stack in self._stacks.items():
                    if name not in parts:
                        stack.clear(row)
                for name, part in parts.items():
                    self._stack(model, name).put(row, part)
            except BaseException:  # no memory
                self._free.append(row)
                raise
            return row

    def take(self, row: int) -> None:
        """Give a row free; the next adapter overwrites it."""
        with self._lock:
            self._free.append(row)

    def use(self, rows: Sequence[int]) -> None:
        """The next forward call has these rows, one for each sequence of its batch."""
        self._rows = tuple(rows) if any(rows) else None

    def close(self) -> None:
        """Let go of the model, whose modules hold the bank by their hooks."""
        with self._lock:
            for hook in self._hooks:
                hook.remove()
            self._hooks.clear()
            self._stacks.clear()
            self._model = None

    def bytes(self) -> int:
        """Memory of all stacks."""
        with self._lock:
            held = [t for s in self._stacks.values() for t in (s.a, s.b, s.gain) if t is not None]
        return sum(t.numel() * t.element_size() for t in held)

    def _stack(self, model: nn.Module, name: str) -> Stack:
        stack = self._stacks.get(name)
        if stack is None:
            module = model.get_submodule(name)
            stack = self._stacks[name] = Stack(module, _like(model, module))
            self._hooks.append(module.register_forward_hook(self._hook(stack)))
        return stack

    def _hook(self, stack: Stack) -> Any:
        def add(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            rows = self._rows
            return None if rows is None else stack.add(inputs[0], output, rows)

        return add


def _check(model: nn.Module, parts: Mapping[str, LoraPart]) -> None:
    for name, part in parts.items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise BadRequest(
                f"the model has no module {name!r}, which the adapter changes"
            ) from None
        have = (getattr(module, "in_features", None), getattr(module, "out_features", None))
        if have != (part.a.shape[1], part.b.shape[0]):
            raise BadRequest(
                f"the adapter's {name} is {part.b.shape[0]} x {part.a.shape[1]} "
                f"and the model's {have[1]} x {have[0]}"
            )


def dense_weight(module: nn.Module) -> torch.Tensor:
    """The weight (out, in) of a linear module; of a quantised one what it stands for."""
    if module.weight.dtype.is_floating_point:
        return module.weight.data
    from glm.quantise import dequantised

    return dequantised(module)


def _like(model: nn.Module, module: nn.Module) -> torch.Tensor:
    """A tensor with the number type and the device that an adapter of a module should have."""
    weight = module.weight
    if weight.dtype.is_floating_point:
        return weight
    return torch.empty(0, dtype=getattr(model, "dtype", torch.float32), device=weight.device)

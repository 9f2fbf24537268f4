"""Many LoRA adapters beside one loaded model: stacked, chosen per row of a step by an index.

Every linear module that some adapter changes gets stacks of A and B matrices, one for each size of
rank. A step says which adapter each of its sequences has (`use`), by a row, and a hook adds the
update to the module's output, so the weights stay untouched and quantised modules work as well.
Choosing an adapter is an index, whatever their number. A DoRA is a scale of the output beside it.

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
NARROWEST = 8  # what a smaller rank is padded to
FIRST = 4  # places of a new stack; it doubles when it is full


class Stack:
    """Adapters of one module whose ranks are near: `a` (n, in, r), `b` (n, r, out), and what a DoRA
    scales the output by, less 1: `gain` (n, out). Place 0 is nothing; `_places` are rows of the
    bank."""

    def __init__(self, module: Any, like: torch.Tensor, width: int) -> None:
        self.module = module
        self.inputs, self.outputs = module.in_features, module.out_features
        self._like = like
        self._pair = self._zeros(FIRST, self.inputs, width), self._zeros(FIRST, width, self.outputs)
        self.gain: torch.Tensor | None = None
        self._places: dict[int, int] = {}
        self._free: list[int] = []
        self._gathered: tuple[Any, tuple[torch.Tensor, ...]] = (None, ())

    @property
    def a(self) -> torch.Tensor:
        return self._pair[0]

    @property
    def b(self) -> torch.Tensor:
        return self._pair[1]

    def __len__(self) -> int:
        return len(self._places)

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self._like.dtype, device=self._like.device)

    def put(self, row: int, part: LoraPart) -> None:
        """Write an adapter's part into a place that nobody reads."""
        rank = part.a.shape[0]
        place = self._free.pop() if self._free else len(self._places) + 1
        self._places[row] = place
        self._reserve(place + 1)
        self.a[place].zero_()
        self.b[place].zero_()
        self.a[place, :, :rank] = part.a.T.to(self.a)
        update = part.b.float() * part.scale
        if part.magnitude is not None:
            gain = part.magnitude.float().to(update.device) / self._lengths(part)
            update = update * gain[:, None]
            if self.gain is None:
                self.gain = self._zeros(len(self.a), self.outputs)
            self.gain[place] = (gain - 1).to(self.gain)
        elif self.gain is not None:
            self.gain[place].zero_()
        self.b[place, :rank] = update.T.to(self.b)
        self._gathered = (None, ())

    def drop(self, row: int) -> None:
        """Nobody has this row any more; the next adapter overwrites its place."""
        place = self._places.pop(row, None)
        if place is not None:
            self._free.append(place)
            self._gathered = (None, ())

    def _lengths(self, part: LoraPart) -> torch.Tensor:
        """The length of each row of weight + update (out,), in fp32."""
        weight = dense_weight(self.module).float()
        update = (part.b.float() @ part.a.float()) * part.scale
        return torch.linalg.vector_norm(weight + update.to(weight.device), dim=1).to(part.b.device)

    def _reserve(self, count: int) -> None:
        have = len(self.a)
        if count <= have:
            return
        count = max(2 * have, count)
        a, b = (self._zeros(count, *one.shape[1:]) for one in self._pair)
        a[:have], b[:have] = self._pair
        if self.gain is not None:
            gain = self._zeros(count, self.outputs)
            gain[:have] = self.gain
            self.gain = gain
        self._pair = a, b  # at once: the worker may be reading

    def add(self, x: torch.Tensor, y: torch.Tensor, rows: tuple[int, ...]) -> torch.Tensor:
        """The module's output `y` (B, T, out) for input `x` (B, T, in), with the updates."""
        if not any(row in self._places for row in rows):
            return y
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
        here = [self._places.get(row, 0) for row in rows]
        if len(set(here)) == 1:
            out = [a[here[0]], b[here[0]]]
            return (*out, gain[here[0]]) if gain is not None else tuple(out)
        index = torch.tensor(here, device=a.device)
        out = [a[index], b[index]]
        return (*out, gain[index][:, None]) if gain is not None else tuple(out)


class LoraBank:
    """The adapters of one model; `put` numbers them, each number a row."""

    def __init__(self, model: nn.Module) -> None:
        self._model: nn.Module | None = model
        # By module, one for each width; a tuple is replaced whole, for the worker may be in it.
        self._stacks: dict[str, tuple[Stack, ...]] = {}
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
                for name, part in parts.items():
                    self._stack(model, name, part.a.shape[0]).put(row, part)
            except BaseException:  # no memory
                self.take(row)
                raise
            return row

    def take(self, row: int) -> None:
        """Give a row free; a stack that nobody needs gives its memory back."""
        with self._lock:
            self._free.append(row)
            for name, stacks in self._stacks.items():
                for stack in stacks:
                    stack.drop(row)
                self._stacks[name] = tuple(stack for stack in stacks if len(stack))

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
            stacks = [stack for found in self._stacks.values() for stack in found]
        held = [t for s in stacks for t in (s.a, s.b, s.gain) if t is not None]
        return sum(t.numel() * t.element_size() for t in held)

    def _stack(self, model: nn.Module, name: str, rank: int) -> Stack:
        """The stack of a module for this rank; ranks are padded to the next power of two."""
        width = max(NARROWEST, 1 << (rank - 1).bit_length())
        if name not in self._stacks:
            self._stacks[name] = ()
            self._hooks.append(model.get_submodule(name).register_forward_hook(self._hook(name)))
        for stack in self._stacks[name]:
            if stack.a.shape[2] == width:
                return stack
        module = model.get_submodule(name)
        stack = Stack(module, _like(model, module), width)
        self._stacks[name] = (*self._stacks[name], stack)
        return stack

    def _hook(self, name: str) -> Any:
        def add(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            rows = self._rows
            if rows is None:
                return None
            for stack in self._stacks.get(name, ()):
                output = stack.add(inputs[0], output, rows)
            return output

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
    from glm.quantisation.quantise import dequantised

    return dequantised(module)


def _like(model: nn.Module, module: nn.Module) -> torch.Tensor:
    """A tensor with the number type and the device that an adapter of a module should have."""
    weight = module.weight
    if weight.dtype.is_floating_point:
        return weight
    return torch.empty(0, dtype=getattr(model, "dtype", torch.float32), device=weight.device)

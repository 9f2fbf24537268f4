"""The stacks of adapters while others read them, and when memory ends."""

from __future__ import annotations

import gc
import sys
import threading

import pytest
import torch
from torch import nn

from glm.adapters.values import Adapter, AdapterInfo, LoraPart
from glm.errors import EngineError
from glm.lora_bank import LoraBank, Stack
from glm.seats import Seats
from tests.tiny_glm import tiny_glm

NAME = "model.layers.0.self_attn.q_proj"


def part(rank: int = 4, size: int = 64) -> LoraPart:
    return LoraPart(torch.ones(rank, size), torch.ones(size, rank), 1.0)


def test_the_worker_never_sees_half_of_a_stack_that_grows():
    torn, before = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            stack, done = Stack(nn.Linear(8, 8), torch.zeros(0)), threading.Event()

            def read(stack: Stack = stack, done: threading.Event = done) -> None:
                while not done.is_set():
                    a, b = stack._gather((1, 2))
                    torn.extend([1] * (a.shape[2] != b.shape[1]))

            reader = threading.Thread(target=read)
            reader.start()
            for row in range(3, 30):
                stack.put(row, part(8 * row, 8))
            done.set()
            reader.join()
    finally:
        sys.setswitchinterval(before)
    assert not torn


def test_a_seat_that_is_collected_while_an_adapter_comes_gives_its_row_free():
    seats = Seats(tiny_glm())
    seats.add("old", Adapter(AdapterInfo("old", None, "LoRA"), {NAME: part()}))
    circle = [seats.get("old")]
    circle.append(circle)
    seats.remove("old")
    del circle

    class Collecting(dict):
        looks = 0

        def items(self):
            self.looks += 1
            if self.looks == 2:  # the first look is whether it fits
                gc.collect()
            return super().items()

    coming = Collecting({NAME: part()})
    add = threading.Thread(target=seats.bank.put, args=(coming,), daemon=True)
    add.start()
    add.join(20)
    assert not add.is_alive()


def test_a_row_that_could_not_be_filled_is_used_again(monkeypatch):
    bank = LoraBank(tiny_glm())
    assert bank.put({NAME: part()}) == 1
    monkeypatch.setattr(Stack, "put", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        bank.put({NAME: part()})
    monkeypatch.undo()
    assert bank.put({NAME: part()}) == 2


def test_a_closed_bank_holds_no_model_and_takes_no_adapter():
    model = tiny_glm()
    seats = Seats(model)
    seats.add("one", Adapter(AdapterInfo("one", None, "LoRA"), {NAME: part()}))
    seats.close()
    assert not model.get_submodule(NAME)._forward_hooks
    assert seats.bytes() == 0
    with pytest.raises(EngineError, match="closed"):
        seats.add("two", Adapter(AdapterInfo("two", None, "LoRA"), {NAME: part()}))

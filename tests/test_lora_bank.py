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
from glm.scheduler.lora_bank import LoraBank, Stack
from glm.scheduler.seats import Seats
from tests.tiny_glm import tiny_glm

NAME = "model.layers.0.self_attn.q_proj"


def part(rank: int = 4, size: int = 64) -> LoraPart:
    return LoraPart(torch.ones(rank, size), torch.ones(size, rank), 1.0)


def test_the_worker_never_sees_half_of_a_stack_that_grows():
    torn, before = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            stack, done = Stack(nn.Linear(8, 8), torch.zeros(0), 8), threading.Event()

            for row in (1, 2):
                stack.put(row, part(4, 8))

            def read(stack: Stack = stack, done: threading.Event = done) -> None:
                while not done.is_set():
                    a, b = stack._gather((1, 2))
                    if (float(a.sum()), float(b.sum())) != (64.0, 64.0):
                        torn.append((a, b))

            reader = threading.Thread(target=read)
            reader.start()
            for row in range(3, 30):
                stack.put(row, part(8, 8))
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


def test_one_adapter_of_a_high_rank_does_not_widen_the_others():
    bank = LoraBank(tiny_glm())
    for _ in range(20):
        bank.put({NAME: part(8)})
    few = bank.bytes()
    high = bank.put({NAME: part(64)})
    assert bank.bytes() < 3 * few
    bank.take(high)
    assert bank.bytes() == few  # and its memory comes back


def test_a_place_is_used_again_and_another_one_never(monkeypatch):
    stack = Stack(nn.Linear(8, 8), torch.zeros(0), 8)
    for row in (1, 2, 3):
        stack.put(row, part(4, 8))
    stack.drop(2)
    monkeypatch.setattr(Stack, "_reserve", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        stack.put(4, part(4, 8))
    stack.drop(4)
    monkeypatch.undo()
    stack.put(5, part(4, 8))
    stack.put(6, part(4, 8))
    assert len(set(stack._places.values())) == 4

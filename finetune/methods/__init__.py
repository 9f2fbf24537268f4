"""Training methods: what of a model learns, how it is saved and put back.

A new one is a file beside these, a line here and a row in tests/test_methods.py.
"""

from __future__ import annotations

from finetune.methods import freeze, full, lora, ptuning, qlora
from finetune.methods.values import Method, Result, asked_bits, no_bits

METHODS: dict[str, Method] = {
    "lora": Method(asked_bits, lora.apply, lora.save, lora.load),
    "qlora": Method(qlora.bits, qlora.apply, lora.save, lora.load),
    "ptuning": Method(asked_bits, ptuning.apply, ptuning.save, ptuning.load),
    "full": Method(no_bits, full.apply, full.save, full.load, whole=True),
    "freeze": Method(no_bits, freeze.apply, full.save, full.load, whole=True),
}

__all__ = ["METHODS", "Method", "Result"]

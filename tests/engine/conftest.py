"""Engines over a tiny random model whose steps are watched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import GlmForCausalLM

from glm.engines.local import LocalEngine
from tests.tiny_glm import CONTEXT, Make, Steps, tiny_glm


@pytest.fixture
def model() -> GlmForCausalLM:
    return tiny_glm()


@pytest.fixture
def steps(model: GlmForCausalLM) -> Iterator[Steps]:
    watch = Steps(model)
    yield watch
    watch.free()


@pytest.fixture
def make(model: GlmForCausalLM, steps: Steps) -> Iterator[Make]:
    """Engines over `model` that are closed after the test."""
    made: list[LocalEngine] = []

    def engine(**limits: Any) -> LocalEngine:
        made.append(LocalEngine(model, context=CONTEXT, **limits))
        return made[-1]

    yield engine
    steps.free()
    for one in made:
        one.close()

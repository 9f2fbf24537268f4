"""Sampling values: which are refused, and what the others do to the logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glm.errors import BadSampling
from glm.messages import Sampling
from glm.sampling import validate
from glm.scheduler.sampler import Sampler, choose

BAD: list[tuple[str, Any, str]] = [
    ("max_tokens", -1, "1 to 100"),
    ("max_tokens", 0, "1 to 100"),
    ("max_tokens", "abc", "1 to 100"),
    ("max_tokens", 10**9, "1 to 100"),
    ("max_tokens", 101, "1 to 100"),
    ("max_tokens", True, "1 to 100"),
    ("max_tokens", 1.5, "1 to 100"),
    ("max_tokens", math.nan, "1 to 100"),
    ("max_tokens", math.inf, "1 to 100"),
    ("temperature", -1, "0 to 2"),
    ("temperature", math.nan, "0 to 2"),
    ("temperature", 1e308, "0 to 2"),
    ("temperature", "hot", "0 to 2"),
    ("temperature", True, "0 to 2"),
    ("temperature", None, "0 to 2"),
    ("top_p", 2, "above 0 to 1"),
    ("top_p", 0, "above 0 to 1"),
    ("top_p", math.nan, "above 0 to 1"),
    ("top_k", -1, "0 to 1,000,000"),
    ("top_k", 0.5, "0 to 1,000,000"),
    ("repetition_penalty", 0, "above 0 to 2"),
    ("repetition_penalty", -math.inf, "above 0 to 2"),
    ("repetition_penalty", 3, "above 0 to 2"),
    ("seed", "1", "64 bits"),
    ("seed", 2**64, "64 bits"),
    ("seed", 1.0, "64 bits"),
    ("stop", ("",), "not empty"),
    ("stop", "ab", "not empty"),
    ("stop", (1,), "not empty"),
    ("stop", ("x",) * 17, "at most 16"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(BadSampling) as caught:
        validate(replace(Sampling(max_tokens=50), **{field: value}), context=100)
    sentence = str(caught.value)
    assert field in sentence
    assert allowed in sentence


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(BadSampling, match=r"max_tokens.*temperature.*top_p.*seed"):
        validate(Sampling(max_tokens=0, temperature=9, top_p=0, seed=2**70), context=100)


def test_a_long_bad_value_is_cut_in_the_sentence() -> None:
    with pytest.raises(BadSampling) as caught:
        validate(replace(Sampling(), temperature="x" * 10_000), context=2000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=1, temperature=0, top_p=1, top_k=0, repetition_penalty=2),
        Sampling(max_tokens=100, temperature=2, top_p=1e-9, top_k=1_000_000, seed=-5),
        Sampling(max_tokens=7, temperature=1, stop=("a",) * 16, seed=2**64 - 1),
    ],
)
def test_the_ends_of_the_ranges_are_allowed(sampling: Sampling) -> None:
    validate(sampling, context=100)


def frequencies(logits: torch.Tensor, sampling: Sampling, draws: int = 2000) -> torch.Tensor:
    """How often each id is drawn."""
    sampler = Sampler(replace(sampling, seed=7))
    counts = torch.zeros(logits.shape[-1])
    for _ in range(draws // 100):
        for id in choose(logits.expand(100, -1), [sampler] * 100):
            assert id is not None
            counts[id] += 1
    return counts / counts.sum()


def expected(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution transformers' generate() draws from."""
    scores = TemperatureLogitsWarper(float(sampling.temperature))(None, logits[None])
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    return torch.softmax(scores[0], dim=-1)


@pytest.mark.parametrize("size", [40, 600])
@pytest.mark.parametrize("spread", [0.5, 3.0])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 1.0), (0, 0.8), (5, 1.0), (5, 0.6), (200, 0.9), (0, 0.01)]
)
def test_draws_follow_the_distribution_of_transformers(
    size: int, spread: float, top_k: int, top_p: float
) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)) * spread
    sampling = Sampling(temperature=0.7, top_k=min(top_k, size), top_p=top_p)
    want = expected(logits, sampling)
    got = frequencies(logits, sampling)
    assert got[want == 0].sum() == 0
    kept = int((want > 0).sum())
    assert (got - want).abs().sum() < 0.02 + 1.6 * (kept / 2000) ** 0.5


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    ids = [3, 9, 9, 20]
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=1.3))
    for more in ([], [4], [4, 30]):
        have = ids + more
        reference = RepetitionPenaltyLogitsProcessor(1.3)(
            torch.tensor([have]), logits[None].clone()
        )
        assert torch.equal(sampler.penalised(logits, have), reference[0])


def test_the_same_seed_draws_the_same_ids_in_any_company() -> None:
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(2)) * 3
    alone = Sampler(Sampling(temperature=1, top_p=0.9, seed=3))
    first = [choose(row[None], [alone])[0] for row in logits]
    mine = Sampler(Sampling(temperature=1, top_p=0.9, seed=3))
    others = [Sampler(Sampling(temperature=t)) for t in (0, 2, 0.5)]
    second = []
    for row in logits:
        batch = torch.stack([row.flip(0), row, row * 2, -row])
        second.append(choose(batch, [others[0], mine, *others[1:]])[1])
    assert first == second


def test_other_seeds_and_no_seed_draw_other_ids() -> None:
    logits = torch.zeros(1, 1000)
    drawn = {choose(logits, [Sampler(Sampling(seed=seed))])[0] for seed in (1, 2, 3, None, None)}
    assert len(drawn) > 1


def test_a_tiny_temperature_is_greedy_and_does_not_overflow() -> None:
    logits = torch.tensor([[1.0, 1e4, 3.0]])
    for temperature in (0, 1e-300, 1e-3):
        assert choose(logits, [Sampler(Sampling(temperature=temperature))]) == [1]


def test_a_row_without_a_finite_number_gives_none_and_does_not_disturb_the_others() -> None:
    logits = torch.full((3, 5), float("nan"))
    logits[1] = torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0])
    warm, cold = Sampler(Sampling(temperature=0.1)), Sampler(Sampling(temperature=0))
    assert choose(logits, [warm, warm, cold]) == [None, 1, None]


def test_forbidden_ids_are_never_drawn() -> None:
    logits = torch.full((1, 100), float("-inf"))
    logits[0, [3, 50]] = 0.0
    sampler = Sampler(Sampling(temperature=2, top_p=1.0, seed=1))
    assert {choose(logits, [sampler])[0] for _ in range(50)} == {3, 50}

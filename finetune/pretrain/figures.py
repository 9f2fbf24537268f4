"""The figures of a scoring run: shares with Wilson 95 % intervals, a table, the failing rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from finetune.pretrain.judge import Result

PARTS = ("builtin", "unseen", "handwritten")
METRICS = ("tool", "arguments", "answer", "abstain")


def counts(results: Iterable[Result], metric: str) -> tuple[int, int]:
    """How many are right, of how many where the metric counts."""
    marks = [result.verdict[metric] for result in results if metric in result.verdict]
    return sum(marks), len(marks)


def wilson(right: int, of: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a proportion; (0, 1) when nothing was counted."""
    if not of:
        return 0.0, 1.0
    z, share = 1.959964, right / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def fractions(results: Sequence[Result]) -> dict[str, dict[str, float | None]]:
    """Part -> metric -> share of right ones, for the parts that were asked."""
    out: dict[str, dict[str, float | None]] = {}
    for part in PARTS:
        mine = [result for result in results if result.row["part"] == part]
        pairs = {metric: counts(mine, metric) for metric in METRICS}
        if mine:
            out[part] = {m: round(k / n, 4) if n else None for m, (k, n) in pairs.items()}
    return out


def table(results: Sequence[Result], constrained: Sequence[Result] = ()) -> str:
    """The figures for people: by part, language, number of tools, and built-in tool.

    Where there are figures of constrained calls, they stand under those of the same rows.
    """
    free, bound = _groups(results), _groups(constrained)
    head = f"{'':26}{'rows':>5}" + "".join(f"  {metric:26}" for metric in METRICS)
    lines = [head.rstrip()]
    for label in sorted(free, key=lambda label: (PARTS.index(label.split(",")[0]), label)):
        lines.append(_line(label, free[label]))
        if label in bound:
            lines.append(_line("  constrained", bound[label]))
    return "\n".join(lines)


def _groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        row = result.row
        part, number = row["part"], result.tools
        labels = [part, f"{part}, {row['language']}"]
        labels.append(f"{part}, {number} tool{'s' if number > 1 else ''}")
        if part == "builtin":
            labels.append(f"builtin, {row['call']['name'] if row['call'] else 'no tool'}")
        for label in labels:
            groups.setdefault(label, []).append(result)
    return groups


def _line(label: str, results: Sequence[Result]) -> str:
    cells = [_cell(*counts(results, metric)) for metric in METRICS]
    return f"{label:26}{len(results):5}" + "".join(f"  {cell:26}" for cell in cells).rstrip()


def _cell(right: int, of: int) -> str:
    if not of:
        return "-"
    low, high = wilson(right, of)
    return f"{right / of:.3f} [{low:.2f}-{high:.2f}] {right}/{of}"


def failures(results: Sequence[Result], number: int) -> str:
    """The first `number` rows of each part with a wrong verdict: asked, wanted, given."""
    lines = []
    for part in PARTS:
        wrong = [r for r in results if r.row["part"] == part and not all(r.verdict.values())]
        for result in wrong[:number]:
            lines += ["", *_failure(result)]
    return "\n".join(lines)


def _failure(result: Result) -> list[str]:
    row, first, second = result.row, result.first, result.second
    missed = ", ".join(metric for metric, right in result.verdict.items() if not right)
    wanted = json.dumps(row["call"], ensure_ascii=False)
    lines = [f"{row['id']}  wrong: {missed}", f"  user    {row['user']}", f"  wanted  {wanted}"]
    for call in first.message.calls:
        given = {"name": call.name, "arguments": dict(call.arguments)}
        lines.append(f"  called  {json.dumps(given, ensure_ascii=False)}")
    lines.append(f"  said    {first.message.content!r} {'' if first.clean else '(not clean)'}")
    if result.observed and second:
        lines.append(f"  tool    {result.observed.text}")
        lines.append(f"  then    {second.message.content!r}")
    return [line.rstrip() for line in lines]

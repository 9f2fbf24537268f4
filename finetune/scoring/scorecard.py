"""The figures of an evaluation: each answer scored by its kind, the table, the report as JSON.

An answer is judged as calls where calls were recorded, as JSON where the recorded text is JSON,
else as text; where tools were offered and none was called, abstaining counts, too. "replayed" is
of whole exchanges with calls: every call as recorded, then an answer. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune import metrics
from finetune.metrics import Figure, Score, Scores
from finetune.scoring.exchanges import Exchange, Given, Played
from glm.messages import Message

Kind = Literal["text", "json", "calls"]
Figures = dict[str, dict[str, Figure]]
# kind -> its metrics in the order of the table
METRICS: dict[str, tuple[str, ...]] = {
    "text": ("rouge-1", "rouge-2", "rouge-l", "bleu-4", "exact"),
    "json": ("parses", "exact", "item-f1"),
    "calls": (
        "called",
        "tool",
        "parses",
        "schema",
        "exact",
        "field-precision",
        "field-recall",
    ),
    "tools": ("abstains", "replayed"),
}
WORDS = {
    "text": "texts",
    "json": "JSON texts",
    "calls": "tool calls",
    "tools": "exchanges with tools",
}


@dataclass(frozen=True, slots=True)
class Scored:
    """An exchange as it was played: scores by place in `Exchange.turns`, and of the whole."""

    played: Played
    answers: dict[int, Scores]
    whole: Scores


@dataclass(frozen=True, slots=True)
class Case:
    """An exchange of a row. `place` is where the row stands; `ways` are "free", "constrained"."""

    row: int
    place: str
    exchange: Exchange
    ways: dict[str, Scored]


def score(exchange: Exchange, played: Played) -> Scored:
    """Judge what was answered."""
    answers = {place: _answer(exchange, place, given) for place, given in played.given.items()}
    for place, given in played.given.items():
        if given.error:  # also where nothing was wanted and nothing came
            answers[place] = {name: Score(0, one.of) for name, one in answers[place].items()}
    return Scored(played, answers, _whole(exchange, played))


def kind_of(recorded: Message) -> Kind:
    """How an answer is judged."""
    if recorded.calls:
        return "calls"
    return "json" if metrics.is_json(recorded.content) else "text"


def _answer(exchange: Exchange, place: int, given: Given) -> Scores:
    recorded, said = exchange.turns[place], given.message.content
    kind = kind_of(recorded)
    if kind == "calls":
        return metrics.call_scores(recorded.calls, given.called, exchange.asked.tools)
    if kind == "json":
        return metrics.json_scores(recorded.content, said)
    return metrics.text_scores(recorded.content, said)


def _whole(exchange: Exchange, played: Played) -> Scores:
    if exchange.calls:
        return {"replayed": metrics.share(played.done)}
    if not exchange.asked.tools:
        return {}
    wrong = any(given.error or given.called.any for given in played.given.values())
    return {"abstains": metrics.share(not wrong)}


# ---- figures -----------------------------------------------------------------------------


def figures(cases: Sequence[Case], way: str) -> Figures:
    """Kind -> metric -> figure, of what was played in this way; {} when nothing was."""
    found: dict[tuple[str, str], list[Score]] = {}
    for case in cases:
        if scored := case.ways.get(way):
            parts = [(kind_of(case.exchange.turns[i]), some) for i, some in scored.answers.items()]
            for kind, some in (*parts, ("tools", scored.whole)):
                for name, one in some.items():
                    found.setdefault((kind, name), []).append(one)
    out: Figures = {}
    for kind, names in METRICS.items():
        for name in names:
            if figure := metrics.figure_of(found.get((kind, name), [])):
                out.setdefault(kind, {})[name] = figure
    return out


def table(by_way: Mapping[str, Figures]) -> str:
    """The figures for people, the ways beside each other: value [95 % interval] of how many."""
    ways = [way for way, found in by_way.items() if found]
    lines = ["".join([f"{'':22}", *(f"{way:30}" for way in ways)])]
    for kind, names in METRICS.items():
        rows = [name for name in names if any(name in by_way[way].get(kind, {}) for way in ways)]
        lines += [WORDS[kind]] if rows else []
        for name in rows:
            cells = (f"{_cell(by_way[way].get(kind, {}).get(name)):30}" for way in ways)
            lines.append("".join([f"  {name:20}", *cells]))
    return "\n".join(line.rstrip() for line in lines)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return f"{figure.value:.3f} [{figure.low:.3f}-{figure.high:.3f}] {figure.number}"


# ---- JSON --------------------------------------------------------------------------------


def figures_json(found: Figures) -> dict[str, Any]:
    return {
        kind: {
            name: {
                "value": _round(f.value),
                "low": _round(f.low),
                "high": _round(f.high),
                "number": f.number,
            }
            for name, f in some.items()
        }
        for kind, some in found.items()
    }


def case_json(case: Case) -> dict[str, Any]:
    """An exchange with what was asked, wanted and given, so that a page can show the difference."""
    last = case.exchange.asked.messages[-1]
    turns = [_turn(case, place) for place in case.exchange.wanted]
    ways = {way: _values(scored.whole) for way, scored in case.ways.items() if scored.whole}
    asked = {"role": last.role, "content": last.content}
    out = {"row": case.row, "place": case.place, "asked": asked, "answers": turns}
    return {**out, "scores": ways} if ways else out


def _turn(case: Case, place: int) -> dict[str, Any]:
    recorded = case.exchange.turns[place]
    out = {"turn": place, "kind": kind_of(recorded), "wanted": _said(recorded)}
    for way, scored in case.ways.items():
        given = scored.played.given[place]
        out[way] = {**_said(given.message), "reason": given.reason, "replayed": given.replayed}
        if given.error:
            out[way]["error"] = given.error
        if given.unread:
            out[way]["unread"] = [
                {"name": item.name, "text": item.raw, "reason": item.reason}
                for item in given.unread
            ]
        out[way]["scores"] = _values(scored.answers[place])
    return out


def _said(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"content": message.content}
    if message.calls:
        out["calls"] = [{"name": c.name, "arguments": dict(c.arguments)} for c in message.calls]
    return out


def _values(some: Scores) -> dict[str, float | None]:
    return {name: None if one.value is None else _round(one.value) for name, one in some.items()}


def _round(value: float) -> float:
    return round(value, 4)

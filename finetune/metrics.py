"""How good is an answer? Text by ROUGE and BLEU-4, JSON by its items, tool calls by their parts.

    scores = text_scores("今天晴", "今天多云")          # {"rouge-1": Score(0.5, 1), ...}
    figure = figure_of([s["rouge-1"] for s in many])    # the mean with its 95 % interval

Every score is a part of a whole, so a share, a mean of F values and a precision over many calls
are added up in one way. No torch. ROUGE counts as ROUGE-1.5.5 does (rouge-score) and BLEU-4 is
that of single answers, smoothed by method 3 (NLTK), over words that jieba's algorithm and
dictionary find (rjieba). The official demos' rouge_chinese takes words as a set: its ROUGE-1
and ROUGE-2 differ a little from these. Neither knows what a sentence means.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from finetune.pretrain.figures import wilson
from finetune.scoring.tool_schema import BadSchema, has_schema, misfit
from glm.errors import BadRequest
from glm.messages import ToolCall, ToolSpec

ROUGE = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL"}
LONGEST = 4000  # words of a text that are compared; the longest common part takes their square
SAMPLES = 1000  # of the bootstrap
_FENCE = re.compile(r"```(?:json)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Score:
    """`part` of `of`: 1 of 1 for what is right, 0.4 of 1 for an F value, 3 of 5 fields found."""

    part: float
    of: float = 1.0

    @property
    def value(self) -> float | None:
        """The share; None where nothing counted."""
        return self.part / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Figure:
    """A share over many scores, its 95 % interval, and how many scores counted."""

    value: float
    low: float
    high: float
    number: int


Scores = dict[str, Score]


def share(right: bool) -> Score:
    return Score(float(right))


def require_libraries() -> None:
    """Before the first answer is made: can it be scored? Raises BadRequest."""
    try:
        text_scores("a", "b")
    except ImportError as error:
        raise BadRequest(
            f"{error.name} is missing, which scores texts; pip install -r requirements.txt"
        ) from None


# ---- text --------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Chinese by words, other scripts by words and signs; spaces are none."""
    import rjieba

    return [word for word in rjieba.cut(text) if not word.isspace()][:LONGEST]


def text_scores(wanted: str, given: str) -> Scores:
    """ROUGE-1, -2 and -L (F values), BLEU-4, and whether it is the same but for outer spaces.

    The same words are 1 in all of them, also where there are too few for a pair or four in a row.
    """
    expected, said = words(wanted), words(given)
    exact = share(wanted.strip() == given.strip())
    if not expected or not said or expected == said:
        return {**dict.fromkeys((*ROUGE, "bleu-4"), share(expected == said)), "exact": exact}
    found = _rouge().score(expected, said)
    scores = {name: Score(found[kind].fmeasure) for name, kind in ROUGE.items()}
    return {**scores, "bleu-4": Score(_bleu(expected, said)), "exact": exact}


def _bleu(expected: list[str], said: list[str]) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    return float(sentence_bleu([expected], said, smoothing_function=SmoothingFunction().method3))


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE.values()), tokenizer=_Words())


class _Words:
    """A tokenizer for texts that are words already."""

    def tokenize(self, text: list[str]) -> list[str]:
        return text


# ---- JSON --------------------------------------------------------------------------------


def as_json(text: str) -> Any:
    """The object or list that a text is, or has in its first fenced block; else `_MISSING`."""
    fenced = _FENCE.search(text)
    for candidate in (text, fenced.group(1) if fenced else ""):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict | list):
            return value
    return _MISSING


def is_json(text: str) -> bool:
    """Whether an answer is to be judged as JSON."""
    return as_json(text) is not _MISSING


def json_scores(wanted: str, given: str) -> Scores:
    """Does it parse, is it the same value, and how many of the items are there (F1)?

    The items of a list are its elements; those of an object are its fields, and each element
    of a field that is a list. Order does not count.
    """
    expected, said = as_json(wanted), as_json(given)
    parses = said is not _MISSING
    mine = Counter(items(said)) if parses else Counter()
    theirs = Counter(items(expected))
    both = sum((mine & theirs).values())
    whole = mine.total() + theirs.total()
    return {
        "parses": share(parses),
        "exact": share(parses and normal(expected) == normal(said)),
        "item-f1": Score(2 * both, whole) if whole else share(parses),
    }


def items(value: Any) -> list[str]:
    """What a value consists of, each in the form in which equal ones are equal."""
    if isinstance(value, Mapping):
        return [
            f"{key}: {normal(part)}"
            for key, inner in value.items()
            for part in (inner if isinstance(inner, list) else [inner])
        ]
    return [normal(item) for item in value]


def normal(value: Any) -> str:
    """One text for equal values: 5 and 5.0 are equal, true and 1 are not; outer spaces go."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key).strip(): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


# ---- calls -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Called:
    """The calls of an answer; `unread` are the names of those that could not be read."""

    calls: tuple[ToolCall, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        return bool(self.calls or self.unread)


def same_calls(wanted: Iterable[ToolCall], given: Iterable[ToolCall]) -> bool:
    """Whether these are the same calls, in any order."""
    return Counter(map(call_key, wanted)) == Counter(map(call_key, given))


def call_key(call: ToolCall) -> str:
    """One text for equal calls."""
    return normal([call.name, call.arguments])


def call_scores(
    wanted: Sequence[ToolCall], given: Called, tools: Sequence[ToolSpec] = ()
) -> Scores:
    """Was a tool called, the right one, readably, as its schema says, with these arguments?

    "parses" and "schema" are of what was called, the others of what was wanted. Fields are
    counted over the calls of the same tool; those of a call that is missing are not found.
    """
    names = Counter([*(call.name for call in given.calls), *given.unread])
    tool = names == Counter(call.name for call in wanted)
    scores = {
        "called": share(given.any),
        "tool": share(tool),
        "parses": Score(float(given.any and not given.unread), float(given.any)),
        "schema": _schema(given.calls, {tool.name: tool for tool in tools}),
        "exact": share(not given.unread and same_calls(wanted, given.calls)),
    }
    return scores | _fields(wanted, given.calls)


def _schema(calls: Sequence[ToolCall], tools: Mapping[str, ToolSpec]) -> Score:
    """Calls that fit the schema of their tool; a tool that is not offered is wrong."""
    fit = [found for call in calls if (found := _fits(call, tools.get(call.name))) is not None]
    return share(all(fit)) if fit else Score(0, 0)


def _fits(call: ToolCall, tool: ToolSpec | None) -> bool | None:
    """None where there is no schema to break."""
    if tool is None:
        return False
    try:
        return not misfit(tool, call.arguments) if has_schema(tool) else None
    except BadSchema:
        return None


def _fields(wanted: Sequence[ToolCall], given: Sequence[ToolCall]) -> Scores:
    theirs = Counter(field for call in wanted for field in _named_fields(call))
    mine = Counter(field for call in given for field in _named_fields(call))
    both = (mine & theirs).total()
    return {
        "field-precision": Score(both, mine.total()),
        "field-recall": Score(both, theirs.total()),
    }


def _named_fields(call: ToolCall) -> list[str]:
    return [normal([call.name, key, value]) for key, value in call.arguments.items()]


# ---- many scores -------------------------------------------------------------------------


def figure_of(scores: Sequence[Score]) -> Figure | None:
    """The share over all scores that count; None when there are none.

    The interval is Wilson's for what is right or wrong, and a bootstrap's (seeded) otherwise.
    """
    counted = [score for score in scores if score.of]
    if not counted:
        return None
    part, whole = sum(s.part for s in counted), sum(s.of for s in counted)
    if all(s.of == 1 and s.part in (0, 1) for s in counted):
        low, high = wilson(int(part), len(counted))
    else:
        low, high = _bootstrap(counted)
    return Figure(part / whole, low, high, len(counted))


def _bootstrap(scores: Sequence[Score]) -> tuple[float, float]:
    import numpy as np

    parts = np.array([score.part for score in scores])
    wholes = np.array([score.of for score in scores])
    draw = np.random.default_rng(0)
    values = []
    for _ in range(SAMPLES):  # a sample at a time: all at once would not fit for many rows
        chosen = draw.integers(0, len(scores), len(scores))
        values.append(parts[chosen].sum() / wholes[chosen].sum())
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)

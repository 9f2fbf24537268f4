"""Tool schemas as a mask over our tokens: what a model may write next so that its calls hold.

The dialect writes the grammar in `grammar(tools)`, where it has one: Lark text with a rule `start`
and control tokens by id, `<[64795]>`; llguidance follows it. None there is free decoding. Compiled
grammars and the tables of a vocabulary are kept, so a tool list that was seen before costs
nothing. It is an error of the request, in one sentence, when a grammar cannot be made; nothing is
made twice for two answers at once. It does not make the model call a tool, nor stop it at a limit
of tokens.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

import llguidance
import numpy as np

from glm.dialects.base import Dialect
from glm.dialects.schema import measure
from glm.errors import BadRequest, EngineError
from glm.messages import ToolSpec

Value = TypeVar("Value")
GRAMMARS, VOCABULARIES = 32, 4
# The masks come from the grammar alone: without this the library also wants its own way of
# cutting text into tokens, which is not sentencepiece's.
HEADER = '%llguidance {"no_forcing": true}\n'
LIMITS = llguidance.LLParserLimits(
    max_lexer_states=50_000, max_grammar_size=100_000, verbose_errors=False
)


Grammar = Callable[[Sequence[ToolSpec]], "str | None"]


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def size(self) -> int: ...

    def raw(self, token: int) -> bytes | None:
        """The bytes a token stands for; None for a control token."""


class Kept(Generic[Value]):
    """The last `size` values by key; thread-safe, each made once, and nobody waits for others'."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._values: OrderedDict[Hashable, Future[Value]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`; who comes while it is made waits for it. Raises what `make` does."""
        with self._lock:
            found = self._values.get(key)
            first = found is None
            value = Future[Value]() if found is None else found
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._size:
                self._values.popitem(last=False)
        if first:
            try:
                value.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._values.get(key) is value:
                        del self._values[key]
                value.set_exception(error)
        return value.result()


class Constraint:
    """The state of one answer; see `glm.scheduler.sampler.Constraint`."""

    def __init__(self, matcher: llguidance.LLMatcher, size: int) -> None:
        self._matcher, self._size = matcher, (size + 31) // 32

    def fill(self, bits: np.ndarray) -> None:
        """Set in `bits` (words,) int32 the bits of the ids that may follow, and no others."""
        bits[self._size :] = 0
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, self._size * 4)
        if self._matcher.is_error():
            raise EngineError(_reason(self._matcher.get_error()))

    def accept(self, id: int) -> None:
        """The id that was chosen. Raises EngineError when the grammar does not allow it."""
        if not self._matcher.consume_token(id):
            raise EngineError(_reason(self._matcher.get_error()))


class Constrainer:
    """Makes constraints; holds what is kept between requests."""

    def __init__(self) -> None:
        self._vocabularies: Kept[llguidance.LLTokenizer] = Kept(VOCABULARIES)
        self._grammars: Kept[llguidance.LLMatcher] = Kept(GRAMMARS)

    def calls(self, dialect: Dialect, tools: Sequence[ToolSpec]) -> Constraint | None:
        """For an answer that may call `tools`; None without tools, in a dialect without calls, or
        where its grammar is None.

        Raises BadRequest, naming the tool, when a schema cannot be followed.
        """
        if not tools:
            return None
        write = getattr(dialect, "grammar", None)  # not every dialect has one
        if write is None:
            return None
        tokenizer: Vocabulary = dialect.tokenizer  # type: ignore[attr-defined]
        thinking = getattr(dialect, "thinking", False)  # does a prompt end inside a thought?
        form = (dialect.name, dialect.stop, thinking)
        key = (form, tokenizer.fingerprint, tokenizer.size, _digest(tools))
        matcher = self._grammars.get(key, lambda: self._compile(write, tokenizer, tools))
        return matcher and Constraint(matcher.deep_copy(), tokenizer.size + 1)

    def _compile(
        self, write: Grammar, tokenizer: Vocabulary, tools: Sequence[ToolSpec]
    ) -> llguidance.LLMatcher | None:
        grammar = write(tools)
        if grammar is None:
            return None
        # One file may be read with more control tokens, or fewer.
        same = (tokenizer.fingerprint, tokenizer.size)
        tables = self._vocabularies.get(same, lambda: _tables(tokenizer))
        text = llguidance.LLMatcher.grammar_from_lark(HEADER + grammar)
        matcher = llguidance.LLMatcher(tables, text, log_level=0, limits=LIMITS)
        if matcher.is_error():
            raise BadRequest(
                f"the tools {', '.join(t.name for t in tools)[:200]} cannot be made into a grammar "
                f"({_reason(matcher.get_error())}); turn constrained calls off for them"
            )
        return matcher


# Grammars belong to tools and vocabularies, not to a model that is loaded; so one for all.
_SHARED = Constrainer()
calls_of = _SHARED.calls


class _Encoder:
    """The tables of a vocabulary as llguidance asks for them.

    One id more than there are tokens stands for the end that the library wants; the ends of an
    answer are written in the grammars.
    """

    bos_token_id = None

    def __init__(self, tokens: Iterable[bytes | None]) -> None:
        raw = [*tokens, None]
        self.eos_token_id = len(raw) - 1
        self.special_token_ids = [i for i, data in enumerate(raw) if data is None]
        self.tokens = [b"<|%d|>" % i if data is None else data for i, data in enumerate(raw)]

    def __call__(self, text: bytes | str) -> list[int]:
        """Never asked for a text, since nothing is forced; the library tries it once."""
        return []


def _tables(tokenizer: Vocabulary) -> llguidance.LLTokenizer:
    encoder = _Encoder(map(tokenizer.raw, range(tokenizer.size)))
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(encoder), n_vocab=len(encoder.tokens))


def _digest(tools: Sequence[ToolSpec]) -> str:
    """What of the tools the grammar depends on."""
    for tool in tools:
        try:
            measure(tool.parameters)
        except BadRequest as error:
            raise BadRequest(f"the schema of the tool {tool.name!r:.80}: {error}") from error
    try:
        text = json.dumps([(tool.name, tool.parameters) for tool in tools], default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"a schema of a tool is no JSON ({error})") from error
    return hashlib.sha256(text.encode()).hexdigest()


def _reason(error: str) -> str:
    lines = error.strip().split("\n")
    return lines[0][:200] or "the grammar allows no more"

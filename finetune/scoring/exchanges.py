"""The answers that a recorded conversation wants, and what a model answers in their place.

An exchange is what the assistant does between two turns of somebody else: its calls, what they
brought, its answer. It is played through the tool loop with the recorded observations: a call
equal to the recorded one gets what was recorded. Where the model leaves the recorded way the loop
ends, and the turns it did not reach are asked for after the recorded ones. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from finetune.metrics import Called, call_key, same_calls
from glm.cancel import Cancel
from glm.errors import GlmError
from glm.loop import Ask, LoopOptions, run
from glm.loop.replay import Replay, step
from glm.messages import (
    Conversation,
    Finish,
    Malformed,
    Message,
    Policy,
    ToolCall,
    ToolResult,
    ToolSpec,
)

MOST_ROUNDS = 100  # of the loop
NOTHING = Message("assistant")


@dataclass(frozen=True, slots=True)
class Exchange:
    """`turns` are what was recorded after `asked`; the first is an assistant's and is scored."""

    asked: Conversation
    turns: tuple[Message, ...]

    @property
    def wanted(self) -> tuple[int, ...]:
        """The places in `turns` of the answers to predict; not those the file says not to learn."""
        return tuple(i for i, turn in enumerate(self.turns) if _is_wanted(turn))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Every call that was recorded."""
        return tuple(call for turn in self.turns for call in turn.calls)

    def before(self, place: int) -> Conversation:
        """What was recorded before a turn."""
        return self.asked.add(*self.turns[:place])


@dataclass(frozen=True, slots=True)
class Given:
    """What the model answered. `replayed`: in the loop, after nothing but right calls of its own.

    `reason` is that of `Finish`; `error` says why there is no answer.
    """

    message: Message = NOTHING
    unread: tuple[Malformed, ...] = ()
    reason: str = "error"
    error: str = ""
    replayed: bool = False

    @property
    def called(self) -> Called:
        return Called(self.message.calls, tuple(item.name for item in self.unread))


@dataclass(frozen=True, slots=True)
class Played:
    """The answers by their place in `Exchange.turns`, and whether the loop went the recorded way:
    every call as recorded, and after them an answer that ended."""

    given: dict[int, Given]
    done: bool


def exchanges(conversation: Conversation) -> list[Exchange]:
    """Every exchange in which something is to be predicted."""
    found = []
    messages = conversation.messages
    for start, end in _runs(messages):
        first = next((i for i in range(start, end) if _is_wanted(messages[i])), None)
        if first:  # what nobody asked for, at the very beginning, follows from nothing
            asked = replace(conversation, messages=messages[:first])
            found.append(Exchange(asked, messages[first:end]))
    return found


def _runs(messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """(start, end) of the turns of the assistant and its tools that follow each other."""
    start = None
    for place, message in enumerate((*messages, Message("user"))):
        mine = message.role in ("assistant", "tool")
        if mine and start is None:
            start = place
        elif not mine and start is not None:
            yield start, place
            start = None


def _is_wanted(turn: Message) -> bool:
    return turn.role == "assistant" and turn.learn is not False


# ---- playing -----------------------------------------------------------------------------


def play(exchange: Exchange, ask: Ask) -> Played:
    """What the model answers in an exchange. An answer that failed says so in `Given.error`."""
    reached, done = _replay(exchange, ask)
    given = {place: one for place, one in reached.items() if place in exchange.wanted}
    for place in exchange.wanted:
        if place not in given:
            given[place] = _answer(ask, exchange.before(place))
    return Played(given, done)


def _replay(exchange: Exchange, ask: Ask) -> tuple[dict[int, Given], bool]:
    """The answers of the loop up to the first that is not as recorded, which is among them."""
    places = [i for i, turn in enumerate(exchange.turns) if turn.role == "assistant"]
    rounds = min(MOST_ROUNDS, len(places) + 1)  # the last is asked without tools, and never reached
    given: dict[int, Given] = {}
    try:
        stream = run(ask, exchange.asked, Recorded(exchange), LoopOptions(rounds=rounds))
    except GlmError as error:
        return {places[0]: Given(error=str(error), replayed=True)}, False
    unread: list[Malformed] = []
    while stream.ended is None:
        for event in stream.next(timeout=1.0):
            if isinstance(event, Malformed):
                unread.append(event)
            elif isinstance(event, Finish):
                place = places[len(given)]
                given[place] = _given(event, unread, replayed=True)
                if place == places[-1] or not _goes_on(exchange.turns[place], given[place]):
                    stream.close()
    last = given.get(places[-1])
    wanted = exchange.turns[places[-1]]
    done = last is not None and last.reason in ("stop", "calls") and _as_wanted(wanted, last)
    return given, done


def _goes_on(recorded: Message, given: Given) -> bool:
    """Whether the recorded calls were made, so that there is something to go on with."""
    return bool(recorded.calls) and _as_wanted(recorded, given)


def _as_wanted(recorded: Message, given: Given) -> bool:
    """The recorded calls, or none and some text."""
    if given.unread or not same_calls(recorded.calls, given.message.calls):
        return False
    return bool(recorded.calls or given.message.content.strip())


def _answer(ask: Ask, conversation: Conversation) -> Given:
    unread: list[Malformed] = []
    try:
        for event in ask(conversation):
            if isinstance(event, Malformed):
                unread.append(event)
            elif isinstance(event, Finish):
                return _given(event, unread)
    except GlmError as error:
        return Given(error=str(error))
    return Given(error="the answer did not end")


def _given(finish: Finish, unread: list[Malformed], replayed: bool = False) -> Given:
    """An answer; `unread` is emptied for the next."""
    items = tuple(unread)
    unread.clear()
    return Given(finish.message, items, finish.reason, finish.error, replayed)


class Recorded(Replay):
    """The observations of an exchange as a toolbox. Calls are equal as the metrics say."""

    def __init__(self, exchange: Exchange) -> None:
        pairs = list(_observed(exchange.turns))
        super().__init__(_Offered(exchange.asked.tools), [step(*pair) for pair in pairs])
        self._recorded = {call_key(call): call for call, _ in pairs}

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        return super().call(self._recorded.get(call_key(call), call), cancel)


class _Offered:
    """Tools that the model is told of and nobody has."""

    def __init__(self, tools: tuple[ToolSpec, ...]) -> None:
        self._tools = tools

    def specs(self) -> tuple[ToolSpec, ...]:
        return self._tools

    def policy(self, name: str) -> Policy:
        return "allow"

    def limit(self, name: str) -> float:
        return 0.0

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        return ToolResult(f"{call.name} does not run here", error=True)


def _observed(turns: Sequence[Message]) -> Iterator[tuple[ToolCall, ToolResult]]:
    """Each recorded call with what came back: found by its id, else in order."""
    waiting: list[ToolCall] = []
    for turn in turns:
        if turn.role == "assistant":
            waiting = list(turn.calls)
        elif waiting:
            named = (
                i for i, call in enumerate(waiting) if turn.call_id and call.id == turn.call_id
            )
            yield waiting.pop(next(named, 0)), ToolResult(turn.content)

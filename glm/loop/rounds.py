"""The order of things in a tool loop: an answer, its calls, their observations, the next answer.

`Rounds.steps` is a generator that runs in its reader's thread and waits only as long as the
reader does; `glm.loop` makes a stream of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from glm.chat import EventStream
from glm.errors import BadRequest
from glm.loop import observations
from glm.loop.pause import Decision, Pause
from glm.loop.toolbox import Running, Toolbox
from glm.messages import (
    Call,
    Conversation,
    Corrected,
    Ended,
    EndReason,
    Event,
    Finish,
    LoopEvent,
    Malformed,
    Message,
    Proposed,
    Returned,
    Round,
    Started,
    ToolCall,
    ToolResult,
)

Ask = Callable[[Conversation], EventStream]
Steps = Generator[list[LoopEvent], None, None]
TOO_LATE = "the time limit passed before the answer was complete"


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How far a loop may go, and where it waits for a person.

    `rounds` answers may call tools; then one more is asked for without them. `step`: every call
    waits for a decision, also of tools that are allowed. `review`: so does every observation.
    `tool_seconds` limits each call whose tool has no longer limit of its own; `deadline` is the
    end of it all in `time.monotonic()` seconds. Raises BadRequest.
    """

    rounds: int = 8
    step: bool = False
    review: bool = False
    tool_seconds: float = 120.0
    deadline: float | None = None

    def __post_init__(self) -> None:
        if type(self.rounds) is not int or not 1 <= self.rounds <= 100:
            raise BadRequest(f"rounds is {self.rounds!r}; it must be a whole number, 1 to 100")
        if not 0 < self.tool_seconds <= threading.TIMEOUT_MAX:
            raise BadRequest(f"tool_seconds is {self.tool_seconds!r}; it must be more than 0")


@dataclass(frozen=True, slots=True)
class Answered:
    """How a turn came about: the ids sent and made, and its end."""

    prompt: tuple[int, ...]
    produced: tuple[int, ...]
    finish: Finish


class Rounds:
    """What happens in which order. `steps` runs in its reader's thread, a step a `next`."""

    def __init__(
        self, ask: Ask, conversation: Conversation, toolbox: Toolbox, options: LoopOptions
    ) -> None:
        self._ask, self._toolbox, self._options = ask, toolbox, options
        self._specs = toolbox.specs()
        past, turn, self._left_open = _open_turn(conversation.messages)
        self.base = replace(conversation, messages=past)
        self._ids = {call.id for message in past for call in message.calls}
        self.new = [self._named(message) for message in turn]
        self.answer: EventStream | None = None
        self.answered: dict[int, Answered] = {}
        self._corrections: list[Corrected] = []
        self.pause = Pause(options.deadline)

    # ---- the order of things -------------------------------------------------------------

    def begin(self) -> None:
        if not self._left_open:
            self._next_answer(last=False)

    def steps(self) -> Steps:
        """All events in order, [] where the reader's patience ended."""
        if self._left_open:
            calls = self.new[0].calls
            yield from self._answer_calls(0, calls[len(calls) - self._left_open :])
        rounds = self._options.rounds
        for number in range(1, rounds + 2):
            last = number > rounds
            if self.pause.stopped:
                break
            answer = self.answer if number == 1 and self.answer else self._next_answer(last)
            yield [Round(number, last)]
            place = len(self.new)
            finish, wanted = yield from self._read(answer, last)
            over = finish.reason in ("cancelled", "error")
            if not last:
                yield from self._answer_calls(place, wanted, over)
            if over or last or not wanted:
                yield [self._conclude(finish, last and not over)]
                return
        self.pause.close()
        yield [self.end("cancelled", self._why())]

    def end(self, reason: EndReason, error: str = "") -> Ended:
        return Ended(reason, tuple(self.new), error, tuple(self._corrections))

    def _conclude(self, finish: Finish, at_limit: bool) -> Ended:
        if at_limit:
            rounds = self._options.rounds
            sentence = f"tools were called in {rounds} rounds, the limit; this answer had none"
            return self.end("rounds", sentence)
        if finish.reason == "cancelled":
            return self.end("cancelled", finish.error or self._why())
        return self.end("stop" if finish.reason == "calls" else finish.reason, finish.error)

    # ---- an answer -----------------------------------------------------------------------

    def _next_answer(self, last: bool) -> EventStream:
        tools = () if last else self._specs
        messages = (*self.base.messages, *self.new)
        answer = self._ask(replace(self.base, messages=messages, tools=tools))
        self.answer = answer
        self.pause.ends(answer.close)
        return answer

    def _read(
        self, answer: EventStream, last: bool
    ) -> Generator[list[LoopEvent], None, tuple[Finish, list[ToolCall | Malformed]]]:
        """The events of one answer; its turn is kept. Returns its end and what it wants done."""
        wanted: list[ToolCall | Malformed] = []
        finish: Finish | None = None
        while finish is None:
            events: list[LoopEvent] = []
            for event in answer.next(self.pause.left()):
                event = self._taken(event, wanted)
                events.append(event)
                finish = event if isinstance(event, Finish) else finish
            if finish is None and self.pause.late:
                answer.close()
            if finish is not None:
                self._keep(answer, finish, last, bool(wanted))
            yield events
        readable = any(isinstance(item, ToolCall) for item in wanted)
        return finish, wanted if readable or self._specs else []

    def _taken(self, event: Event, wanted: list[ToolCall | Malformed]) -> Event:
        """An event with the calls named as they are kept; what it wants goes to `wanted`."""
        if isinstance(event, Call):
            event = Call(self._unique(event.call))
            wanted.append(event.call)
        elif isinstance(event, Malformed):
            wanted.append(event)
        elif isinstance(event, Finish):
            calls = tuple(item for item in wanted if isinstance(item, ToolCall))
            event = replace(event, message=replace(event.message, calls=calls))
        return event

    def _keep(self, answer: EventStream, finish: Finish, last: bool, wants: bool) -> None:
        """A turn without a word is not kept; neither is a call in the last one: nobody runs it."""
        message = finish.message
        if last and message.calls:
            message = message.edited(calls=())
        if message.content or message.thinking or (wants and not last):
            made = Answered(answer.prompt, tuple(answer.produced), finish)
            self.answered[len(self.new)] = made
            self.new.append(message)

    # ---- calls ---------------------------------------------------------------------------

    def _answer_calls(
        self, place: int, wanted: Sequence[ToolCall | Malformed], over: bool = False
    ) -> Steps:
        """An observation for each, in order. After the end each call is told to be stopped."""
        for item in wanted:
            if isinstance(item, Malformed):
                if not over and not self.pause.stopped:
                    result = observations.unreadable(item)
                    call = self._unique(ToolCall(item.name, text=item.raw))
                    said = observations.observation(result)
                    self.new.append(Message("tool", said, name=item.name))
                    yield [Returned(call, result)]
            elif over or self.pause.stopped:
                yield [self._observe(item, observations.STOPPED)]
            else:
                yield from self._answer_call(place, item)

    def _answer_call(self, place: int, call: ToolCall) -> Steps:
        policy = "ask" if self._options.step else self._toolbox.policy(call.name)
        decision: Decision | None = Decision()
        if policy == "ask":
            self.pause.expect(call)
        yield [Proposed(call, policy)]
        if policy == "ask":
            decision = yield from self.pause.decision()
        if decision is None:
            result = observations.STOPPED
        elif decision.action == "skip":
            self._corrections.append(Corrected(place, call, None))
            result = observations.SKIPPED
        else:
            call = self._corrected(place, call, decision)
            result = observations.written(decision.text)
            if decision.action == "run":
                result = yield from self._run(call)
        reviewed = result.recorded != observations.PERSON and not self.pause.stopped
        if self._options.review and reviewed:
            yield from self._review(call, result)
        else:
            yield [self._observe(call, result)]

    def _review(self, call: ToolCall, result: ToolResult) -> Steps:
        self.pause.expect(call)
        yield [Returned(call, result, review=True)]
        decision = yield from self.pause.decision()
        if decision is not None and decision.action == "write":
            yield [self._observe(call, observations.written(decision.text))]
        else:
            self._observe(call, result)

    def _run(self, call: ToolCall) -> Generator[list[LoopEvent], None, ToolResult]:
        if self._toolbox.policy(call.name) == "deny":
            return self._refusal(call.name)
        longest = max(self._options.tool_seconds, self._toolbox.limit(call.name))
        seconds = min(longest, max(0.0, self.pause.rest()))
        running = Running(self._toolbox, call, seconds)
        self.pause.ends(partial(running.end, observations.STOPPED))
        yield [Started(call)]
        while (result := running.wait(self.pause.patience)) is None:
            yield []
        return result

    def _refusal(self, name: str) -> ToolResult:
        names = [spec.name for spec in self._specs]
        if name in names:
            return observations.not_allowed(name)
        return observations.refused(name, [n for n in names if self._toolbox.policy(n) != "deny"])

    def _observe(self, call: ToolCall, result: ToolResult) -> Returned:
        said = observations.observation(result)
        self.new.append(Message("tool", said, name=call.name, call_id=call.id))
        return Returned(call, result)

    def _corrected(self, place: int, call: ToolCall, decision: Decision) -> ToolCall:
        """The call as decided. One that was changed is rendered anew in its turn."""
        decided = decision.applied(call)
        if decided is not call:
            self._corrections.append(Corrected(place, call, decided))
            turn = self.new[place]
            calls = tuple(decided if one.id == call.id else one for one in turn.calls)
            self.new[place] = turn.edited(calls=calls)
        return decided

    def _why(self) -> str:
        return TOO_LATE if self.pause.late else ""

    # ---- ids -----------------------------------------------------------------------------

    def _unique(self, call: ToolCall) -> ToolCall:
        """The call with an id that no other call of the conversation has."""
        id, number = call.id, len(self._ids)
        while not id or id in self._ids:
            id, number = f"call_{number}", number + 1
        self._ids.add(id)
        return replace(call, id=id)

    def _named(self, message: Message) -> Message:
        return replace(message, calls=tuple(map(self._unique, message.calls)))


def _open_turn(
    messages: tuple[Message, ...],
) -> tuple[tuple[Message, ...], tuple[Message, ...], int]:
    """(what stands before, the last turn with its observations, how many of its calls are open)."""
    start = len(messages) - 1
    while start > 0 and messages[start].role == "tool":
        start -= 1
    if start < 0 or messages[start].role != "assistant":
        return messages, (), 0
    seen = messages[start + 1 :]
    seen = tuple(m for m in seen if m.call_id) or seen  # what was no call has an observation, too
    left = len(messages[start].calls) - len(seen)
    return (messages[:start], messages[start:], left) if left > 0 else (messages, (), 0)

"""Ask, run the tools the model calls, ask again, until it answers. Events only, no widgets.

    stream = run(ask, conversation, toolbox, LoopOptions(rounds=8))
    while stream.ended is None:
        for event in stream.next(timeout=0.05): ...
        # from any thread: stream.decide(call_id, Decision("skip")), stream.close()

`ask` begins the answer to a conversation, whose `tools` are those that may be called in it:
`lambda c: manager.chat(c, sampling, options=options)`. A tool runs in a thread, so `next` never
waits longer than it was told. A name that is not enabled, or a call that cannot be read, becomes
an observation that says so. What a tool does with its `Cancel` is its own promise.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping

from glm.cancel import Cancel
from glm.chat import EventStream
from glm.errors import GlmError
from glm.loop.pause import Decision
from glm.loop.rounds import Answered, Ask, LoopOptions, Rounds
from glm.loop.toolbox import Toolbox
from glm.messages import Conversation, Ended, LoopEvent

__all__ = ["Ask", "Cancel", "Decision", "LoopOptions", "LoopStream", "Toolbox", "run"]

_log = logging.getLogger(__name__)


def run(
    ask: Ask, conversation: Conversation, toolbox: Toolbox, options: LoopOptions | None = None
) -> LoopStream:
    """Answer a conversation with the tools of a toolbox; returns at once.

    A conversation that ends with calls nobody answered begins with these calls: to go on from a
    fork, end the conversation where the branch begins. Raises what the first `ask` raises; what a
    later one raises ends the stream.
    """
    rounds = Rounds(ask, conversation, toolbox, options or LoopOptions())
    rounds.begin()
    return LoopStream(rounds)


class LoopStream:
    """The events of a loop; the last is always one `Ended`, which stays in `ended`.

    The messages of `Ended` follow those of `conversation`, which lacks the open turn a loop began
    with. Read it from one thread at a time; `close` and `decide` may come from any. Dropping the
    last reference closes it.
    """

    def __init__(self, rounds: Rounds) -> None:
        self._rounds, self._steps = rounds, rounds.steps()
        self.ended: Ended | None = None
        weakref.finalize(self, rounds.pause.close)

    @property
    def conversation(self) -> Conversation:
        """What the new messages follow."""
        return self._rounds.base

    @property
    def answer(self) -> EventStream | None:
        """The latest answer; at a `Finish` it is the one that finished."""
        return self._rounds.answer

    @property
    def answered(self) -> Mapping[int, Answered]:
        """How the model's turns came about, by their place in `Ended.messages`."""
        return self._rounds.answered

    def next(self, timeout: float | None = None) -> list[LoopEvent]:
        """Events that arrived, waiting up to `timeout` seconds; [] on timeout and after Ended."""
        if self.ended is not None:
            return []
        self._rounds.pause.patience = timeout
        try:
            events = next(self._steps)
        except GlmError as error:
            events = [self._rounds.end("error", str(error))]
        except Exception as error:  # the border of a request: the turns so far must be kept
            _log.exception("a tool loop failed")
            events = [self._rounds.end("error", f"the tool loop failed ({type(error).__name__})")]
        if events and isinstance(events[-1], Ended):
            self.ended = events[-1]
            self._rounds.pause.close()
        return events

    def decide(self, call_id: str, decision: Decision) -> bool:
        """Answer a call that waits; False when this call does not wait (any more)."""
        return self._rounds.pause.decide(call_id, decision)

    def close(self) -> None:
        """End the answer, or the tool and all it started; `Ended` is still delivered."""
        self._rounds.pause.close()

    def __iter__(self) -> Iterator[LoopEvent]:
        while self.ended is None:
            yield from self.next(timeout=1.0)

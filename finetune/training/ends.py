"""How a run may end: an exit code, and a sentence that says what happened and how to go on.

The out-of-memory killer of the system and `kill -9` leave no word; `run_folder.outcome` tells them.
"""

from __future__ import annotations

import errno
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from finetune.training import checkpoints
from finetune.training.run_folder import RunFolder, outcome
from finetune.typed import command, place
from glm.errors import GlmError

FINISHED, FAILED, REFUSED, NO_MEMORY, NOT_FINITE, DISK_FULL = 0, 1, 2, 3, 4, 5
SIGNALLED = 128  # plus the number of the signal, as shells count
# How the writers of safetensors and of torch say that nothing more fits
FULL = ("No space left", "Disk quota exceeded", "os error 28", "unexpected pos")


class NotFinite(GlmError):
    """The loss or the gradient is no number any more."""

    def __init__(self, what: str, value: float, step: int) -> None:
        super().__init__(
            f"the {what} is {value} in step {step}; nothing was learnt from that step. "
            "Lower --lr, look at the rows (python -m finetune.doctor), or use --precision fp32"
        )


class Stop:
    """A wish to end, from Ctrl-C or SIGTERM: the step is finished and saved; a second one ends at
    once. `step` is the last one that was finished.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.step = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._told)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _told(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number


def ending(error: BaseException, stop: Stop) -> tuple[int, str]:
    """The exit code of an error, and its sentence."""
    step = stop.step + 1
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, NotFinite):
        return NOT_FINITE, text
    if is_full(error):
        return DISK_FULL, f"the disk is full, so step {step - 1} could not be saved ({text[:200]})"
    if is_memory(error):
        return NO_MEMORY, (
            f"out of memory in step {step}: lower --batch-size (and raise --accumulation) or "
            f"--max-seq-length, or use --gradient-checkpointing or --method qlora ({text[:200]})"
        )
    if isinstance(error, GlmError):
        return REFUSED, str(error).strip()
    if isinstance(error, KeyboardInterrupt):
        return SIGNALLED + (stop.signal or signal.SIGINT), f"stopped at once in step {step}"
    return FAILED, f"{type(error).__name__}: {text}"


def is_full(error: BaseException) -> bool:
    """Whether a disk or a quota is full, whoever wrote: an OSError, torch's or safetensors' own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    if any(sign in text for sign in FULL):
        return True
    causes = (error.__cause__, error.__context__)
    return any(cause is not None and is_full(cause) for cause in causes)


def is_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a card is used up."""
    text = str(error)
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def how_to_go_on(run: RunFolder) -> str:
    """Where a run may be taken up again."""
    found = checkpoints.complete(run.checkpoints)
    if not found:
        return "nothing was saved yet: start it again with --resume last, it begins anew"
    named = ("--config", place(run.config), "--output-dir", place(run.path))
    again = command("-m", "finetune.train", *named, "--resume", "last")
    return f"saved is {found[0].path}; go on with: {again}"


def last_word(folder: Path) -> str:
    """What to say of a run that could not say how it ended; "" of all others."""
    found = outcome(folder)
    if found.state != "killed":
        return ""
    return f"{folder}: {found.reason}. {how_to_go_on(RunFolder(folder))}"


def tell(run: RunFolder, error: BaseException, stop: Stop) -> int:
    """Write how a run ended for an error, and return its exit code."""
    code, sentence = ending(error, stop)
    if code == FAILED:
        lines = "".join(traceback.format_exception(error))
        try:
            run.note(lines)
        except OSError:
            print(lines)
    if code == REFUSED and not run.begun:
        run.refuse(code, sentence)
    else:
        run.end(code, f"{sentence}. {how_to_go_on(run)}")
    return code

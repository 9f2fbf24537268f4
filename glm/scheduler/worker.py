"""The one worker that owns the model: admits, prefills in chunks, decodes all live rows in a step.

Each round admits waiting jobs into free slots, computes at most one prefill chunk and one decode
step for every row that answers, whatever their lengths and ages. The cache of a finished answer
is kept until its slot is needed. A failing step ends the answers that were in it and no others.
In half precision the number of rows in a step changes the rounding; in fp32 answers do not
depend on the company. It does not promise to interrupt a step that has begun.
"""

from __future__ import annotations

import gc
import inspect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from glm.errors import EngineError, QueueFull
from glm.scheduler.fair_queue import FairQueue
from glm.scheduler.job import Job
from glm.scheduler.order import order_of
from glm.scheduler.rows import Rows
from glm.scheduler.sampler import Masks, choose
from glm.scheduler.seats import Seats
from glm.scheduler.slots import Slots

log = logging.getLogger(__name__)

# torch's own choice. What one worker sets is what later threads start with, so each worker sets it.
THREADS = torch.get_num_threads()

CLOSED = "the model was closed while it answered"
NOT_FINITE = (
    "the model computed no finite number; its weights may be damaged, or the number type too small"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """`slots` rows at once, `queue` waiting jobs, `prefill_chunk` prompt ids per round.

    `reuse` off computes every prompt from its first id, to compare with.
    """

    slots: int = 8
    queue: int = 64
    prefill_chunk: int = 256
    threads: int = THREADS
    reuse: bool = True


class Scheduler:
    """Runs jobs on a model in a thread of its own. `computed` counts the prompt ids computed."""

    def __init__(self, model: Any, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.device = next(model.parameters()).device
        self.computed = 0
        self.seats = Seats(model)
        self._last_only = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._waiting: FairQueue[Job] = FairQueue()
        self._slots = Slots(limits.slots, limits.reuse)
        self._gone: list[str] = []  # adapters whose kept caches are to be dropped
        self._masks = Masks()
        self._seconds = 2.0  # of one answer, a moving average
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="glm-engine", daemon=True)
        self._thread.start()

    # ---- called from any thread ----------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job. Raises QueueFull, and EngineError after `close`."""
        job.order = order_of(self.seats.config, job.request.prompt)
        with self._wake:
            if self._closing:
                raise EngineError("the engine is closed")
            if len(self._waiting) >= self.limits.queue:
                raise QueueFull(max(1.0, len(self._waiting) * self._seconds / self.limits.slots))
            self._waiting.push(job.request.owner, job)
            self._wake.notify()

    def remove(self, adapter: str) -> None:
        """Take an adapter away; requests that have it end with it."""
        self.seats.remove(adapter)
        with self._wake:
            self._gone.append(adapter)

    def close(self, timeout: float | None = None) -> None:
        """End the worker after its present step; every open job finishes with "error"."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    # ---- the worker ----------------------------------------------------------------------

    def _run(self) -> None:
        torch.set_num_threads(self.limits.threads)
        with torch.inference_mode():
            while not self._closing:
                try:
                    self._round()
                except Exception as error:  # the border of a request, whatever step it was in
                    log.exception("a round of the engine failed")
                    self._end(self._slots.jobs, _sentence(error))
        with self._wake:
            waiting = self._waiting.remove(lambda job: True)
        for job in waiting:
            job.finish("error", CLOSED)
        self._end(self._slots.jobs, CLOSED)
        self._leave_memory()

    def _leave_memory(self) -> None:
        """Let go of the model: nothing in here holds it, nor does it hold itself."""
        tangled = hasattr(self.model, "hf_device_map")  # accelerate's hooks go in circles
        self.model = None
        self.seats.close()
        if tangled:
            gc.collect()
        self._forget()

    def _round(self) -> None:
        self._release()
        self._admit()
        if self._slots.prefilling:
            self._guarded(self._prefill, self._slots.prefilling[0])
            self._release()
        if self._slots.decoding:
            self._guarded(self._decode, *self._slots.decoding)

    def _release(self) -> None:
        """Free the slots of jobs of which nothing more is to be computed."""
        while self._gone:
            self._slots.forget(self._gone.pop())
        for job in self._slots.jobs:
            if job.unwanted:
                job.let_go()
                self._slots.leave(job)
                self._seconds += 0.2 * (time.monotonic() - job.started - self._seconds)

    def _admit(self) -> None:
        """Take waiting jobs into free slots; sleep while there is nothing to do."""
        with self._wake:
            while not (self._waiting or self._slots.jobs or self._closing):
                self._wake.wait()
            unwanted = self._waiting.remove(lambda job: job.unwanted)
            while self._waiting and self._slots.free:
                job = self._waiting.pop()
                job.started = time.monotonic()
                self._slots.prefilling.append(job)
        for job in unwanted:
            job.let_go()

    # ---- one prefill chunk ---------------------------------------------------------------

    def _prefill(self, job: Job) -> None:
        """Compute the next chunk of the first prompt, then let the next prompt have its turn."""
        rows = job.rows if job.rows is not None else self._slots.open(job)
        start, size, offset = job.filled, len(job.ids), job.seat.offset
        stop = size if job.order.whole else min(start + self.limits.prefill_chunk, size)
        rows.reserve(1, size + offset)
        hidden = job.order.hidden(start, stop, offset)
        logits = self._forward(
            [job],
            rows.one(0, start + offset, stop + offset),
            [job.ids[start:stop]],
            job.order.positions(start, stop)[None],
            None if hidden is None else self._mask(hidden)[None, None],  # (1, 1, T, L)
        )
        job.filled = stop
        self.computed += stop - start
        if stop < size:
            self._slots.prefilling.rotate(-1)
        elif self._extend([job], logits):
            self._slots.join(job)

    # ---- one decode step -----------------------------------------------------------------

    def _decode(self, *jobs: Job) -> None:
        """Compute one more id for every row."""
        lengths = [len(job.ids) for job in jobs]
        ends = [length + job.seat.offset for length, job in zip(lengths, jobs, strict=True)]
        stop, count = max(ends), len(jobs)
        batch = self._slots.batch
        batch.reserve(count, stop)
        if count == 1:
            rows, mask = batch.one(0, stop - 1, stop), None
        else:
            columns = torch.tensor(ends) - 1  # (B,)
            rows = batch.all(columns.to(self.device), stop)
            mask = self._mask(torch.arange(stop) > columns[:, None])[:, None, None]  # (B, 1, 1, L)
        positions = [
            job.order.positions(length - 1, length)
            for job, length in zip(jobs, lengths, strict=True)
        ]
        ids = [[job.ids[-1]] for job in jobs]
        logits = self._forward(jobs, rows, ids, torch.stack(positions), mask)
        for job, length in zip(jobs, lengths, strict=True):
            job.filled = length
        self._extend(jobs, logits)

    def _mask(self, hidden: torch.Tensor) -> torch.Tensor:
        """What may not be looked at, as numbers to be added to the scores; the same shape."""
        zeros = torch.zeros(hidden.shape, dtype=self.model.dtype, device=self.device)
        return zeros.masked_fill_(hidden.to(self.device), torch.finfo(zeros.dtype).min)

    def _forward(
        self,
        jobs: Sequence[Job],
        rows: Rows,
        ids: list[list[int]],
        positions: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Logits of the last position in fp32 (B, V)."""
        only = {"logits_to_keep": 1} if self._last_only else {}
        self.seats.bank.use([job.seat.row for job in jobs])
        try:
            out = self.model(
                input_ids=torch.tensor(ids, device=self.device),
                position_ids=positions.to(self.device),
                attention_mask=mask,
                past_key_values=rows,
                use_cache=False,
                **only,
            )
        finally:
            self.seats.bank.use(())
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def _extend(self, jobs: Sequence[Job], logits: torch.Tensor) -> bool:
        """Choose and deliver the next id of each job; True when all of them go on."""
        if any(job.sampler.penalises for job in jobs):
            rows = [
                job.sampler.penalised(row, job.ids) if job.sampler.penalises else row
                for job, row in zip(jobs, logits, strict=True)
            ]
            logits = torch.stack(rows)
        constraints = [job.sampler.constraint for job in jobs]
        if any(constraint is not None for constraint in constraints):
            for row, error in self._masks.apply(logits, constraints).items():
                self._constraint_failed(jobs[row], error)
        going = True
        for job, id in zip(jobs, choose(logits, [job.sampler for job in jobs]), strict=True):
            going = self._deliver(job, id) and going
        return going

    def _constraint_failed(self, job: Job, error: Exception) -> None:
        log.error("a constraint failed", exc_info=error)
        job.finish("error", f"the answer's constraint failed ({_first_line(error)})")

    def _deliver(self, job: Job, id: int | None) -> bool:
        """Give a job its next id; True when it goes on."""
        constraint = job.sampler.constraint
        if job.finished:
            return False
        if id is None:
            job.broken = True
            nothing = "the answer's constraint allows no token here"
            job.finish("error", NOT_FINITE if constraint is None else nothing)
            return False
        if constraint is not None:
            try:
                constraint.accept(id)
            except Exception as error:  # the constraint of one request: the others go on
                self._constraint_failed(job, error)
                return False
        return job.accept(id)

    # ---- when a step raises --------------------------------------------------------------

    def _guarded(self, step: Callable[..., None], *jobs: Job) -> None:
        """Run a step. If it raises, its jobs end with a sentence and the others go on.

        When memory is short the kept caches are given up first and the step is tried again.
        """
        try:
            try:
                step(*jobs)
            except Exception as error:
                if not (_out_of_memory(error) and self._forget()):
                    raise
                log.warning("memory is full: dropped the kept caches")
                step(*jobs)
        except Exception as error:  # the border of a request
            log.exception("a step of the model failed")
            self._end(jobs, _sentence(error))

    def _end(self, jobs: Sequence[Job], sentence: str) -> None:
        self._slots.drop(jobs)
        for job in jobs:
            job.finish("error", sentence)

    def _forget(self) -> bool:
        """Drop every kept cache; True when there was one."""
        count = self._slots.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return count > 0


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and (
        "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _sentence(error: Exception) -> str:
    if isinstance(error, EngineError):
        return str(error)
    if _out_of_memory(error):
        return (
            "the memory is full; shorten the conversation, "
            "or open a smaller model or one with a smaller number type"
        )
    return f"the model failed while it answered ({_first_line(error)})"

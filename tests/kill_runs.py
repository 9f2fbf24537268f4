"""Training runs that are killed by SIGKILL at a named moment, then gone on with.

    python -m tests.kill_runs FOLDER MOMENT...     (lines of [moment, killed, state, code, equal])

A moment is `step:7`, in the forward of that step; `file:12`, at the twelfth thing that is done to
a file of the run; `torn:2`, with half of the second file of tensors written. Everything is
imported once; each run is a fork. `all` are the moments of the files of a whole run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from finetune import train
from finetune.methods import lora
from finetune.training import loop
from finetune.training.run_folder import outcome
from tests.training import measured, write_rows

STEPS = ("--max-steps", "8", "--save-interval", "3", "--log-interval", "1", "--lr", "1e-2")
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR


def run(folder: Path, *flags: str) -> int:
    rows = folder.parent / "rows.jsonl"
    words = ["--train-file", str(rows), "--output-dir", str(folder), "--device", "cpu"]
    words += ["--max-seq-length", "256", "--batch-size", "2", "--accumulation", "1", *STEPS]
    return train.main([*words, "--dev-file", str(rows), *flags])


def forked(work: Callable[[], int]) -> int:
    """The wait status of a child that does this, without its output."""
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitpid(child, 0)[1]


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(folder: Path, moment: str, count_into: Path | None = None) -> None:
    """Die at a moment; or only count the files' moments."""
    kind, _, number = moment.partition(":")
    if kind == "step":
        arm_step(int(number))
    elif kind == "torn":
        arm_torn(int(number))
    else:
        arm_file(folder, int(number or 0), count_into)


def arm_step(step: int) -> None:
    real = loop.Loop.compute_loss

    def compute(self: loop.Loop, *words: object, **named: object) -> object:
        if self.state.global_step + 1 == step:
            dies()
        return real(self, *words, **named)

    loop.Loop.compute_loss = compute


def arm_torn(number: int) -> None:
    seen = [0]

    def torn(real: Callable[..., None]) -> Callable[..., None]:
        def write(what: object, where: object, *words: object, **named: object) -> None:
            real(what, where, *words, **named)
            seen[0] += 1
            if seen[0] == number:
                os.truncate(str(where), os.path.getsize(str(where)) // 2)
                dies()

        return write

    torch.save = torn(torch.save)
    lora.save_file = torn(safetensors.torch.save_file)


def arm_file(folder: Path, number: int, count_into: Path | None) -> None:
    seen = [0]

    def heard(event: str, details: tuple[object, ...]) -> None:
        if event not in EVENTS or not str(details[0]).startswith(str(folder)):
            return
        if event == "open" and not int(details[2] or 0) & WRITES:
            return
        seen[0] += 1
        if count_into is not None:
            handle = os.open(count_into, os.O_WRONLY | os.O_CREAT)
            os.write(handle, str(seen[0]).encode())
            os.close(handle)
        elif seen[0] == number:
            dies()

    sys.addaudithook(heard)


def attempt(root: Path, moment: str, wanted: dict[int, float]) -> list[object]:
    folder = root / moment.replace(":", "-")

    def armed() -> int:
        arm(folder, moment)
        return run(folder)

    status = forked(armed)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    state = outcome(folder).state
    code = os.waitstatus_to_exitcode(forked(lambda: run(folder, "--resume", "last")))
    same = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    same_file = same == (root / "whole" / "adapter" / "adapter_model.safetensors").read_bytes()
    return [killed, state, code, measured(folder) == wanted and same_file]


def main(argv: list[str]) -> int:
    root = Path(argv[0])
    torch.set_num_threads(1)
    write_rows(root / "rows.jsonl")
    counted = root / "count"

    def counting() -> int:
        arm(root / "whole", "file", counted)
        return run(root / "whole")

    assert forked(counting) == 0
    wanted = measured(root / "whole")
    moments = argv[1:]
    if moments == ["all"]:
        moments = [f"file:{n}" for n in range(1, int(counted.read_text()) + 1)]
    for moment in moments:
        print(json.dumps([moment, *attempt(root, moment, wanted)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

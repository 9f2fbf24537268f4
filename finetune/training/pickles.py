"""The files of a checkpoint that are pickles, and what they may hold: numbers, no code.

deepspeed opens its own files as whole pickles, which run whatever somebody wrote into them; a run
that was handed over by somebody else is gone on with here all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
from transformers import trainer_pt_utils

from glm.errors import BadRequest

FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # also over a weights_only that says the opposite
ENDINGS = (".pt", ".pth")


@contextmanager
def numbers_only(deepspeed: bool) -> Iterator[None]:
    """Within, torch.load makes nothing but tensors, numbers and what Trainer or deepspeed saves."""
    before = os.environ.get(FORCED)
    with ExitStack() as held:
        held.enter_context(trainer_pt_utils.safe_globals())
        if deepspeed:
            held.enter_context(safe_globals(_of_deepspeed()))
        os.environ[FORCED] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[FORCED]
            else:
                os.environ[FORCED] = before


def check(folder: Path, deepspeed: bool) -> None:
    """Raises BadRequest for a file that `numbers_only` would not open, and opens none."""
    with numbers_only(deepspeed):
        for file in sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS):
            if others := _others(file):
                raise BadRequest(
                    f"{file} holds {', '.join(others)}, which no run saves: it may be code, and "
                    "is not opened. Begin anew in another --output-dir"
                )


def _others(file: Path) -> list[str]:
    try:
        return get_unsafe_globals_in_checkpoint(file)
    except Exception as error:  # no zip, a torn pickle: torch has no one word for it
        raise BadRequest(f"{file} is no file that a run saved: {error}") from None


def _of_deepspeed() -> list[type]:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]

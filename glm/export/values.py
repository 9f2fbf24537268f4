"""What an export is asked for and what it says afterwards: plain values, standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str, float | None], None]
AUTO = "auto"  # the numbers as the source stores them


def silent(text: str, part: float | None = None) -> None:
    """The progress of nobody who watches."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One export: the model folder `model`, its adapter or none, into the new folder `folder`.

    `to` is a name of `glm.export.TARGETS`; `dtype` one of `glm.export.DTYPES` or "auto"; `alpha`
    for LoRA files that do not say theirs; `tokenizer` where the model folder has none.
    """

    model: str | Path
    folder: str | Path
    to: str
    adapter: str | Path | None = None
    dtype: str = AUTO
    alpha: float | None = None
    tokenizer: str | Path | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of loading a written folder again.

    `tensors` of them were compared number by number and are equal (within the step of the
    quantisation where `dtype` is one). `logits`: the largest difference of the answers to fixed
    ids, and None where no model was run; `tolerance` is what was allowed. `notes` say what the
    reader of the folder should know.
    """

    tensors: int
    dtype: str
    logits: float | None = None
    tolerance: float | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = "within half a step of" if "Q8_0" in self.dtype else "equal to"
        same = f"{self.tensors} tensors ({self.dtype}) read back and {how} the source"
        if self.logits is None:
            return same
        return f"{same}; logits differ by {self.logits:.1e} at most (allowed {self.tolerance:.1e})"


@dataclass(frozen=True, slots=True)
class Written:
    """A finished export: the folder, its size, and the comparison's result."""

    folder: Path
    to: str
    bytes: int
    verdict: Verdict

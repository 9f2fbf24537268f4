"""Going on with a run exactly: which checkpoint, and what must be as it was.

Other options, another base model, other data or another number of processes would give another
run under the same name; they are refused by name. What changes no number may change. No torch.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.training import checkpoints
from finetune.training.checkpoints import Checkpoint
from finetune.training.run_folder import RunFolder
from glm.errors import BadRequest

if TYPE_CHECKING:
    from finetune.config import TrainConfig

ABOUT = "run.json"
# Options that change no number that is learnt.
FREE = {
    "output_dir", "resume", "save_interval", "eval_interval", "log_interval", "keep_checkpoints",
    "early_stopping", "report_to", "loss_image", "preview", "device", "eval_batch_size",
    "dataloader_num_workers", "preset", "node_rank", "master", "hostfile", "num_gpus", "nodes",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """What a run is: its options, base model, data and processes. `steps` are all there will be."""

    config: dict[str, Any]
    base: str
    base_hash: str
    data_hash: str
    world: int
    steps: int

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> About:
        return cls(**json.loads((checkpoint.path / ABOUT).read_text(encoding="utf-8")))


def options(cfg: TrainConfig) -> dict[str, Any]:
    """The options as JSON has them."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(cfg)))
    return plain


def differences(saved: About, now: About) -> list[str]:
    """A sentence for each thing that must be as it was and is not."""
    found = []
    for name, value in now.config.items():
        before = saved.config.get(name, value)
        if before != value and name not in FREE:
            found.append(f"--{name.replace('_', '-')} was {_shown(before)} and is {_shown(value)}")
    if saved.base_hash != now.base_hash:
        found.append(f"the base model was {saved.base} and is {now.base} with other weights")
    if saved.data_hash != now.data_hash:
        found.append("the training files hold other rows than they did")
    if saved.world != now.world:
        found.append(f"{saved.world} processes trained and {now.world} run now")
    return found


def check(saved: About, now: About, where: Path) -> None:
    """Raises BadRequest naming everything that differs."""
    found = differences(saved, now)
    if found:
        lines = "\n".join(f"- {line}" for line in found)
        raise BadRequest(
            f"{where} cannot be gone on with exactly:\n{lines}\n"
            "give what it was, or begin a new run in another --output-dir"
        )


def find(run: RunFolder, wanted: str) -> Checkpoint | None:
    """The checkpoint that `--resume` means: last, a step, or a folder; None to begin anew.

    Damaged ones are passed over for `last`, and said. Raises BadRequest for one that was named.
    """
    if not wanted:
        return None
    if wanted == "last":
        return _newest(run)
    path = run.checkpoints / f"checkpoint-{wanted}" if wanted.isdigit() else Path(wanted)
    found = checkpoints.read(path)
    if found is None:
        there = ", ".join(str(item.step) for item in checkpoints.complete(run.checkpoints))
        raise BadRequest(f"{path} is no complete checkpoint; there are {there or 'none'}")
    if found.path.parent.resolve() != run.checkpoints.resolve():
        raise BadRequest(f"{path} is of another run; give that one's folder as --output-dir")
    if damage := found.damage():
        raise BadRequest(damage)
    return found


def _newest(run: RunFolder) -> Checkpoint | None:
    for found in checkpoints.complete(run.checkpoints):
        damage = found.damage()
        if not damage:
            return found
        run.say(f"passed over: {damage}")
    return None


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

"""From a configuration to the command that trains on 1..N processes, on one machine or several.

Everything goes by torchrun, whose world size is checked by whoever trains (`world_problem`):
`accelerate launch --cpu` ends with success after training on one process. Not covered: starting
the command on the other machines; each starts its own, docs/many_machines.md shows how.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from finetune.options.paths import path_problem
from finetune.training import network
from finetune.training.ends import REFUSED, SIGNALLED, last_word
from finetune.training.machine import Machine

if TYPE_CHECKING:
    from finetune.config import TrainConfig

CONFIGS = Path(__file__).parents[1] / "configs"
PORT = 29500
TERMINATED = 143
ACCELERATE_STARTED_ONE = (
    "accelerate launch was asked for several processes and started one, as it does on a CPU: give "
    "--num-gpus with their number, or start with torchrun"
)
_HOST = re.compile(r"(?P<host>\S+)(\s+slots=(?P<slots>\d+))?\s*\Z")
_ADDRESS = re.compile(r"(?P<host>[\w.\-]+|\[[0-9a-fA-F:]+\])(:(?P<port>\d{1,5}))?\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the processes of this machine stand among all; 0 `processes`: nobody said.

    `peer` is another machine, in the network by which they talk.
    """

    processes: int
    nodes: int = 1
    rank: int = 0
    master: str = ""
    peer: str = field(default="", compare=False)

    @property
    def world(self) -> int:
        return self.processes * self.nodes


def place(config: TrainConfig, own_names: Sequence[str] = ()) -> Place:
    """Read the options, or the hostfile, in which this machine is looked up.

    By its names and its addresses; where `own_names` are given, by these alone.

    Raises ValueError with what is wrong.
    """
    if config.hostfile:
        if problem := path_problem(config.hostfile):
            raise ValueError(f"--hostfile is no file: {problem}")
        return _place_of(Path(config.hostfile), own_names)
    if config.node_rank >= config.nodes:
        raise ValueError(f"--node-rank is {config.node_rank} of {config.nodes} (they begin at 0)")
    if config.nodes > 1 and not config.master:
        raise ValueError(f"--nodes is {config.nodes}: give --master HOST:PORT of the first machine")
    if config.master and not _ADDRESS.match(config.master):
        raise ValueError(f"--master is {config.master!r}; HOST:PORT is needed")
    found = _ADDRESS.match(config.master)
    peer = found["host"].strip("[]") if found else ""
    return Place(config.num_gpus, config.nodes, config.node_rank, config.master, peer)


def _place_of(file: Path, own_names: Sequence[str]) -> Place:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--hostfile {file} cannot be read: {error}") from None
    hosts = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        found = _HOST.match(text) if text else None
        if text and not found:
            raise ValueError(f"--hostfile {file} line {number}: `HOST slots=N` is needed")
        if found:
            hosts.append((found["host"], int(found["slots"] or 1)))
    if not hosts:
        raise ValueError(f"--hostfile {file} names no machine")
    if len({slots for _, slots in hosts}) > 1:
        raise ValueError(f"--hostfile {file}: all machines need the same number of slots")
    here = _rank([host for host, _ in hosts], own_names)
    if here is None:
        names = ", ".join(own_names or network.own_names())
        raise ValueError(f"--hostfile {file} does not name this machine, which is {names}")
    peer = hosts[0 if here else -1][0]
    return Place(hosts[0][1], len(hosts), here, f"{hosts[0][0]}:{PORT}", peer)


def _rank(hosts: Sequence[str], own_names: Sequence[str]) -> int | None:
    names = own_names or network.own_names()
    named = [rank for rank, host in enumerate(hosts) if host in names]
    if not named and not own_names:
        named = [rank for rank, host in enumerate(hosts) if network.is_here(host)]
    return named[0] if named else None


# ---- the command ----


def command(place: Place, arguments: Sequence[str], module: str = "finetune.train") -> list[str]:
    """What to run on this machine. One process needs no launcher."""
    python = [sys.executable, "-m"]
    if place.world <= 1:
        return [*python, module, *arguments]
    launcher = [*python, "torch.distributed.run", "--nproc_per_node", str(place.processes or 1)]
    if place.nodes == 1:
        launcher += ["--standalone", "--nnodes", "1"]
    else:
        found = _ADDRESS.match(place.master)
        assert found  # `place` has looked
        # Static ranks: a rendezvous between machines waited for ever where names did not resolve.
        launcher += ["--nnodes", str(place.nodes), "--node_rank", str(place.rank)]
        launcher += ["--master_addr", found["host"].strip("[]")]
        launcher += ["--master_port", found["port"] or str(PORT)]
    # After -- torchrun does not take --master for its own --master-addr.
    return [*launcher, "-m", "--", module, *arguments]


def environment(
    config: TrainConfig, place: Place, machine: Machine, environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment to run it in: threads shared out, deepspeed told about a CPU, the network."""
    added: dict[str, str] = {}
    if place.processes > 1:
        added["OMP_NUM_THREADS"] = str(max(1, machine.cores // place.processes))
    if on_cpu(config, machine) and deepspeed_file(config):
        added["DS_ACCELERATOR"] = "cpu"
    if place.nodes > 1 and (interface := network.interface_to(place.peer)):
        added["GLOO_SOCKET_IFNAME"] = interface  # else it takes that of the own name: often lo
    return {**added, **environ}


def own_programs_first(environ: Mapping[str, str]) -> str:
    """PATH, with the folder of this Python before all others."""
    own = str(Path(sys.executable).parent)
    others = [part for part in environ.get("PATH", os.defpath).split(os.pathsep) if part != own]
    return os.pathsep.join([own, *others])


def on_cpu(config: TrainConfig, machine: Machine) -> bool:
    return config.device == "cpu" or (config.device == "auto" and not machine.gpus)


def needs_launcher(config: TrainConfig, environ: Mapping[str, str]) -> bool:
    """Whether several processes were asked for and this is none of them yet."""
    return "WORLD_SIZE" not in environ and place(config).world > 1


def start(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> int:
    """Run to the end and return the exit code; ending this process ends the training.

    Of a run that is killed the last word is said here.
    """
    code = _wait(command, environ)
    if code != REFUSED and (word := last_word(folder)):  # else it is an earlier run's
        print(word, file=sys.stderr)
    return code if code >= 0 else SIGNALLED - code


def _wait(command: Sequence[str], environ: Mapping[str, str]) -> int:
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with subprocess.Popen(list(command), env=dict(environ)) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                return process.wait()  # the terminal told it too; it saves and ends
            except BaseException:
                process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def world_problem(config: TrainConfig, environ: Mapping[str, str]) -> list[str]:
    """A sentence when another number of processes runs than was asked for."""
    try:
        wanted = place(config).world
    except ValueError:
        return []  # said by `machine_problems`
    if "WORLD_SIZE" not in environ:
        # Of one process accelerate's launcher tells no master.
        several = {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= environ.keys()
        return [ACCELERATE_STARTED_ONE] if several and wanted <= 1 else []
    runs = environ["WORLD_SIZE"]
    if not wanted or str(wanted) == runs:
        return []
    return [
        f"{wanted} processes were asked for and {runs} run: start with python -m finetune.run, "
        "or with torchrun and the same number"
    ]


# ---- deepspeed and FSDP ----


def deepspeed_file(config: TrainConfig) -> Path | None:
    """The deepspeed configuration that is used, the user's own or one of ours."""
    if config.deepspeed:
        return Path(config.deepspeed).expanduser()
    name = f"zero{config.zero}{'_offload' if config.offload else ''}.json"
    return CONFIGS / name if config.zero else None


def read_deepspeed(file: Path) -> dict[str, Any]:
    """A deepspeed configuration. Raises ValueError with what is wrong."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error.msg} (line {error.lineno})") from None
    if not isinstance(found, dict) or not isinstance(found.get("zero_optimization", {}), dict):
        raise ValueError(f"{file} is not a deepspeed configuration: {{...}} is needed")
    return found


def effective(values: Mapping[str, Any]) -> str:
    """One line about what a deepspeed configuration does, `ZeRO stage 2, bf16 auto`."""
    zero = values.get("zero_optimization", {})
    parts = [f"ZeRO stage {zero.get('stage', 0)}"]
    for name in ("optimizer", "param"):
        device = zero.get(f"offload_{name}", {}).get("device", "none")
        if device != "none":
            parts.append(f"{name} on {device}")
    for name in ("bf16", "fp16"):
        if enabled := values.get(name, {}).get("enabled"):
            parts.append(name if enabled is True else f"{name} {enabled}")
    return ", ".join(parts)


def fsdp_settings() -> dict[str, Any]:
    """`fsdp_config` of transformers' TrainingArguments."""
    text = (CONFIGS / "fsdp2.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def machine_problems(
    config: TrainConfig, machine: Machine, environ: Mapping[str, str]
) -> Iterator[str]:
    """What stands in the way of several processes, before anything starts."""
    try:
        where = place(config)
    except ValueError as error:
        yield str(error)
        where = Place(0)
    if where.nodes > 1 and not config.output_dir:
        yield "several machines write one run: give --output-dir, on a disk they share"
    cards = 0 if on_cpu(config, machine) else len(machine.gpus)
    if cards and where.processes > cards:
        yield (
            f"--num-gpus is {where.processes} and {cards} are visible here; "
            f"use at most {cards}, or --device cpu"
        )
    ways = {
        "--zero": config.zero,
        "--deepspeed": config.deepspeed,
        "--fsdp": config.fsdp,
    }
    used = [name for name, value in ways.items() if value]
    if len(used) > 1:
        yield f"{' and '.join(used)} exclude each other; give one"
    if config.offload and not config.zero:
        yield "--offload belongs to --zero 2 or --zero 3 (a --deepspeed file says its own)"
    file = deepspeed_file(config)
    if file and not path_problem(str(file)) and file.exists():
        yield from _deepspeed_problems(config, file, machine)


def _deepspeed_problems(config: TrainConfig, file: Path, machine: Machine) -> Iterator[str]:
    if sys.platform != "linux":
        yield "deepspeed ships no build for this system; use --fsdp, or one process"
    try:
        values = read_deepspeed(file)
    except ValueError as error:
        yield f"--deepspeed: {error}"
        return
    same = {
        "train_micro_batch_size_per_gpu": ("--batch-size", config.batch_size),
        "gradient_accumulation_steps": ("--accumulation", config.accumulation),
        "gradient_clipping": ("--max-grad-norm", config.max_grad_norm),
    }
    for key, (flag, ours) in same.items():
        theirs = values.get(key, "auto")
        if theirs not in ("auto", ours):
            yield f'{key} is {theirs} in {file} and {flag} is {ours}; write "auto" or the same'
    zero = values.get("zero_optimization", {})
    offloads = zero.get("offload_optimizer", {}).get("device", "none") != "none"
    builds = on_cpu(config, machine) or (
        offloads and values.get("zero_force_ds_cpu_optimizer", True)
    )
    if builds and not machine.compiler:
        yield (
            "deepspeed builds a part of itself in C++ here, and there is no compiler: install one "
            "(Debian and Ubuntu: sudo apt install g++), or use --fsdp"
        )

"""Options of a training run: how many processes train together, and how."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.options.option import opt


@dataclass(frozen=True)
class Machines:
    """How many processes train together, and how."""

    num_gpus: int = opt(
        0,
        "processes on this machine, one a device; 0: as many as the launcher started",
        minimum=0,
        maximum=1024,
        aliases=("num_processes", "nproc_per_node"),
    )
    nodes: int = opt(
        1, "machines", minimum=1, maximum=65536, aliases=("nnodes", "num_nodes", "num_machines")
    )
    node_rank: int = opt(
        0,
        "which of the machines this is, from 0",
        minimum=0,
        maximum=65535,
        aliases=("machine_rank",),
    )
    master: str = opt("", "HOST:PORT of machine 0", aliases=("rdzv_endpoint",))
    hostfile: str = opt(
        "", "file with a line `HOST slots=N` for each machine, instead of the three above"
    )
    zero: int = opt(0, "deepspeed ZeRO stage; 0: none", choices=(0, 2, 3), aliases=("zero_stage",))
    offload: bool = opt(False, "ZeRO: hold optimizer and parameters in main memory")
    deepspeed: str = opt("", "a deepspeed file of your own", aliases=("deepspeed_config",))
    fsdp: bool = opt(
        False,
        "FSDP2: spread parameters without deepspeed",
        spellings={"full_shard": True, "full_shard auto_wrap": True, "": False},
    )

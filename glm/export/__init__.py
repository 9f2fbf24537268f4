"""Write a model, merged or not, in the layout another program reads; and compare what was written.

    from glm.export import Wanted, export
    export(Wanted("assets/tiny", "/tmp/out", to="native"))

A target is a file with `write(source, folder, progress)` and `check(source, folder, progress)`,
listed in `TARGETS`. Weights stream: no second copy of the model is ever in memory. No torch is
imported before an export begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from glm.errors import BadRequest, CheckpointError
from glm.export.folder import appearing, place, size
from glm.export.values import AUTO, Progress, Verdict, Wanted, Written, silent

HALVES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class Target:
    """`module` writes it. `adapter`: it is the adapter alone that is written, not the model."""

    module: str
    title: str
    adapter: bool = False
    dtypes: tuple[str, ...] = (AUTO, *HALVES)


TARGETS: dict[str, Target] = {
    "hub": Target("glm.export.hub", "original ChatGLM layout of the hub"),
    "native": Target("glm.export.native", "Glm folder for transformers, vLLM, SGLang"),
    "peft": Target("glm.export.peft", "PEFT adapter", adapter=True, dtypes=(AUTO,)),
    "ptuning": Target("glm.export.ptuning", "official P-Tuning v2 file", True, (AUTO,)),
    "gguf": Target(
        "glm.export.gguf", "GGUF file for llama.cpp and Ollama", dtypes=(AUTO, *HALVES, "q8_0")
    ),
}
DTYPES = tuple(dict.fromkeys(name for target in TARGETS.values() for name in target.dtypes))
SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "f16": "float16"}

__all__ = ["DTYPES", "TARGETS", "Progress", "Target", "Verdict", "Wanted", "Written", "export"]


def export(wanted: Wanted, progress: Progress = silent) -> Written:
    """Write `wanted`, read it again, compare, and let it appear.

    Raises BadRequest for what cannot be asked, CheckpointError for what cannot be read, written
    or does not compare; then nothing is left behind.
    """
    target = _checked(wanted)
    folder = place(wanted.folder)
    progress("reading", None)
    source = _source(wanted)
    module: Any = import_module(target.module)
    needed = 0 if target.adapter else source.bytes()
    with appearing(folder, needed) as hidden:
        module.write(source, hidden, progress)
        progress("comparing", None)
        verdict = module.check(source, hidden, progress)
    return Written(folder, wanted.to, size(folder), verdict)


def _checked(wanted: Wanted) -> Target:
    target = TARGETS.get(wanted.to)
    if target is None:
        raise BadRequest(f"no target {wanted.to!r}; available: {', '.join(TARGETS)}")
    dtype = SHORT.get(wanted.dtype, wanted.dtype)
    if dtype not in target.dtypes:
        allowed = ", ".join(target.dtypes)
        raise BadRequest(f"dtype {wanted.dtype!r} is not {wanted.to}'s; allowed: {allowed}")
    if target.adapter and wanted.adapter is None:
        raise BadRequest(f"{wanted.to} writes an adapter alone; name it with --adapter")
    return target


def _source(wanted: Wanted) -> Any:
    from glm.checkpoint.recognise import recognise
    from glm.export.source import open_source

    info = recognise(wanted.model, wanted.tokenizer)
    source = open_source(info, wanted.adapter, wanted.alpha)
    source.dtype = SHORT.get(wanted.dtype, wanted.dtype)
    prefix = source.adapter is not None and source.adapter.prefix is not None
    if prefix and not TARGETS[wanted.to].adapter:
        raise CheckpointError(
            f"{source.adapter.info.name} is a prefix, which no weights can hold; "
            "export it alone as peft or ptuning"
        )
    return source

"""What lies at a path, in one screen: model, adapter or GGUF; what is wrong; what to type next.

    python -m glm.inspect PATH [PATH..] [--json]

Reads file lists, configs and headers. Nothing of a checkpoint is executed, no tensor is read.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glm.checkpoint.headers import FileReport, read
from glm.checkpoint.recognise import ModelInfo, recognise
from glm.errors import GlmError

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
SHOWN = 12  # files of a folder that are listed
NF4 = 0.56  # bytes a number takes in 4 bits, scales included
INT8 = 1.02


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a path. `kind` is "model", "adapter", "gguf" or "unknown".

    `facts` are label and value in order, for people; `faults` sentences on what prevents its use,
    `notes` what to mind; `memory` bytes by type; `next` a command to type.
    """

    path: Path
    kind: str
    what: str
    why: str = ""
    family: str = ""
    dialect: str = ""
    parameters: int = 0
    context: int = 0
    packed_bits: int | None = None
    dtypes: dict[str, int] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    memory: dict[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    next: str = ""


def inspect(path: str | Path) -> Report:
    """The report of a folder or file. What cannot be read is a fault in it, not an exception."""
    place, why = Path(path), ""
    try:
        place = place.expanduser()
        found = place.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, nobody's home, a NUL
        found, why = False, f" ({error})"
    if not found:
        return Report(place, "unknown", "nothing", faults=(f"no file or folder at {place}{why}",))
    ggufs = [place] if place.suffix == ".gguf" else sorted(place.glob("*.gguf"))
    if ggufs:
        return _gguf(place, ggufs[0])
    if kind := _adapter_kind(place):
        return _adapter(place, kind)
    return _model(place)


def lines(report: Report) -> Iterator[str]:
    """The report as a screen of text."""
    yield f"{report.path}"
    yield f"  {report.what}" + (f" ({report.why})" if report.why else "")
    for label, value in report.facts:
        yield f"  {label:<12} {value}"
    if report.memory:
        needs = ", ".join(f"{name} {_bytes(size)}" for name, size in report.memory.items())
        more = ", and the conversation's" if report.kind == "model" else ""
        yield f"  {'memory':<12} {needs}{more}"
    for name, size in report.files[:SHOWN]:
        yield f"    {_bytes(size):>9}  {name}"
    if len(report.files) > SHOWN:
        rest = report.files[SHOWN:]
        yield f"    {_bytes(sum(size for _, size in rest)):>9}  in {len(rest)} more files"
    yield from (f"  note: {note}" for note in report.notes)
    yield from (f"  FAULT: {fault}" for fault in report.faults)
    if report.next:
        yield f"  next: {report.next}"


def _model(place: Path) -> Report:
    files = _files(place)
    read_files = [read(file) for file in _weights(place)]
    faults = [item.fault for item in read_files if item.fault]
    numbers: Counter[str] = Counter()
    for item in read_files:
        numbers += item.numbers
    try:
        info = recognise(place)
    except GlmError as error:
        what = "a checkpoint that cannot be opened" if read_files else "no checkpoint"
        return Report(
            place, "unknown", what, dtypes=dict(numbers), files=files, faults=(str(error), *faults)
        )
    faults += _count_fault(info, numbers, read_files)
    return Report(
        place,
        "model",
        f"{info.family} model, {_layout(info)}",
        info.reason,
        family=info.family,
        dialect=info.dialect,
        parameters=info.parameters,
        context=info.context,
        packed_bits=_packed(info),
        dtypes=dict(numbers),
        facts=tuple(_model_facts(info, numbers)),
        files=files,
        memory=_memory(info),
        faults=tuple(faults),
        notes=tuple(_notes(place, info)),
        next="" if faults else f"python launch.py --model {shlex.quote(str(place))}",
    )


def _model_facts(info: ModelInfo, numbers: Counter[str]) -> Iterator[tuple[str, str]]:
    yield "dialect", info.dialect
    yield "parameters", f"{info.parameters:,}"
    if numbers:
        kinds = (f"{kind} ({part:,} numbers)" for kind, part in numbers.most_common())
        yield "weights", ", ".join(kinds)
    if bits := _packed(info):
        yield "packed", f"in {bits} bits, by the family's own code"
    yield "context", f"{info.context:,} tokens, {_kv(info.config)} of memory each 1000 (16 bit)"
    yield "rope", _rope(info.config)
    yield "vocabulary", _vocabulary(info)


def _rope(config: dict[str, Any]) -> str:
    if config.get("position_encoding_2d") or "inner_hidden_size" in config:
        return "two-dimensional positions"
    ratio = config.get("rope_ratio", 1) or 1
    if config.get("rope_interpolation"):
        return f"base 10000, positions divided by {ratio:g}"
    given = config.get("rope_parameters") or {}
    base = given.get("rope_theta", config.get("rope_theta", 10000.0 * ratio))
    return f"base {base:g}" + (f" (rope_ratio {ratio:g})" if ratio != 1 else "")


def _vocabulary(info: ModelInfo) -> str:
    config = info.config
    rows = config.get("padded_vocab_size") or config.get("vocab_size") or 0
    said = f"{rows:,} rows"
    if info.tokenizer_kind != "sentencepiece":
        return f"{said}; {info.tokenizer.name}"
    from glm.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer(info.tokenizer)
    except GlmError as error:
        return f"{said}; {error}"
    return f"{said}; {tokenizer.text_size:,} pieces and {len(tokenizer.special)} control tokens"


def _kv(config: dict[str, Any]) -> str:
    layers = config.get("num_layers") or config.get("num_hidden_layers") or 0
    heads = config.get("num_attention_heads") or 1
    groups = config.get("multi_query_group_num") or config.get("num_key_value_heads") or heads
    width = config.get("kv_channels") or config.get("head_dim")
    width = width or config.get("hidden_size", 0) // heads
    return _bytes(1000 * 4 * layers * groups * width)


def _memory(info: ModelInfo) -> dict[str, int]:
    """Bytes of the weights; the embedding and the head stay in 16 bit when others are packed."""
    config = info.config
    rows = config.get("padded_vocab_size") or config.get("vocab_size") or 0
    kept = min(2 * rows * config.get("hidden_size", 0), info.parameters)
    rest = info.parameters - kept
    return {
        "fp16": 2 * info.parameters,
        "int8": int(2 * kept + INT8 * rest),
        "int4": int(2 * kept + NF4 * rest),
    }


def _count_fault(info: ModelInfo, numbers: Counter[str], files: list[FileReport]) -> list[str]:
    """More or fewer numbers than the config asks for; rotation tables may come on top."""
    known = files and not any(item.fault for item in files) and not _packed(info)
    if not known or "num_layers" not in info.config or "mixed" in numbers:
        return []
    found, wanted = sum(numbers.values()), info.parameters
    if wanted <= found <= wanted * 1.001 + 4096:
        return []
    if info.config.get("pre_seq_len") or found > wanted:
        return []
    return [f"the files hold {found:,} numbers, config.json asks for {wanted:,}"]


def _notes(place: Path, info: ModelInfo) -> Iterator[str]:
    code = sorted(file.name for file in place.glob("*.py"))
    if info.config.get("auto_map") or code:
        yield f"its program code ({', '.join(code) or 'auto_map'}) is never run"
    used = {file.name for file in info.weights}
    others = [file.name for file in _weights(place) if file.name not in used]
    if others:
        yield f"not used: {', '.join(others[:4])}{' and more' if len(others) > 4 else ''}"


def _layout(info: ModelInfo) -> str:
    return "original layout of the hub" if "num_layers" in info.config else "layout of transformers"


def _packed(info: ModelInfo) -> int | None:
    found = info.packed_bits or info.config.get("quantization_bit")
    return int(found) if found else None


def _adapter_kind(place: Path) -> str | None:
    from glm.adapters.sources import looks_like_adapter  # torch stays out

    return looks_like_adapter(place)


def _adapter(place: Path, kind: str) -> Report:
    from glm.adapters.opening import describe

    try:
        about = describe(place)
    except GlmError as error:
        return Report(place, "adapter", kind, files=_files(place), faults=(str(error),))
    facts = [
        ("rank", about.rank),
        ("tokens", about.tokens and f"{about.tokens} virtual tokens"),
        ("targets", _targets(place)),
        ("made for", about.base),
        ("weights of", about.base_hash),
        ("dialect", about.dialect),
        ("mask", about.layout),
        ("run", about.run),
    ]
    return Report(
        place,
        "adapter",
        about.kind,
        about.reason,
        dialect=about.dialect,
        facts=tuple((label, str(value)) for label, value in facts if value),
        files=_files(place),
        memory={"adapter": about.bytes} if about.bytes else {},
        notes=about.warnings,
        next=f"python -m glm.convert {shlex.quote(about.base or 'BASE')} NEW_FOLDER "
        f"--to {'peft' if about.tokens else 'native'} --adapter {shlex.quote(str(place))}",
    )


def _targets(place: Path) -> str:
    try:
        found = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        names = found.get("target_modules") or ""
    except (OSError, ValueError, AttributeError):
        return ""
    return names if isinstance(names, str) else ", ".join(map(str, names))


def _gguf(place: Path, file: Path) -> Report:
    from glm.export import gguf

    command = f"llama-server -m {shlex.quote(str(file))} --jinja"
    try:
        what, numbers, facts = gguf.describe(file)
    except GlmError as error:
        return Report(place, "gguf", "a GGUF file", files=_files(place), faults=(str(error),))
    return Report(
        place,
        "gguf",
        what,
        parameters=sum(numbers.values()),
        dtypes=numbers,
        facts=facts,
        files=_files(place),
        notes=("for llama.cpp and Ollama; this program opens the folder it was made of",),
        next=command,
    )


def _files(place: Path) -> tuple[tuple[str, int], ...]:
    found = [place] if place.is_file() else [file for file in place.iterdir() if file.is_file()]
    sizes = [(file.name, file.stat().st_size) for file in found]
    return tuple(sorted(sizes, key=lambda item: (-item[1], item[0])))


def _weights(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix in WEIGHTS else []
    return sorted(file for file in place.iterdir() if file.suffix in WEIGHTS and file.is_file())


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the reports; 1 when something is wrong with one of them."""
    parser = argparse.ArgumentParser(prog="python -m glm.inspect", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("path", nargs="+", help="folder or file of a model, adapter or GGUF")
    parser.add_argument("--json", action="store_true", help="the same facts for programs")
    given = parser.parse_args(argv)
    reports = [inspect(path) for path in given.path]
    if given.json:
        print(json.dumps([asdict(r) for r in reports], indent=2, ensure_ascii=False, default=str))
    else:
        print("\n\n".join("\n".join(lines(report)) for report in reports))
    return 1 if any(report.faults for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())

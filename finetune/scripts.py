"""The scripts people know, `finetune_pt_multiturn.sh` and the like: one table.

Standard library only. `python -m finetune.scripts` writes the .sh files from the table. Constants
are named as in the earlier scripts; each stands for an option. Three sets of values: what fits a
model of 6 billion parameters, the earlier system's own (`--preset official`), and what the
embedded model needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).parent

# constant -> the option it stands for
CONSTANTS = {
    "PRE_SEQ_LEN": "pre_seq_len",
    "LORA_RANK": "lora_rank",
    "LORA_ALPHA": "lora_alpha",
    "LR": "lr",
    "NUM_GPUS": "num_gpus",
    "MAX_SEQ_LEN": "max_seq_length",
    "MAX_SOURCE_LEN": "max_source_length",
    "MAX_TARGET_LEN": "max_target_length",
    "DEV_BATCH_SIZE": "batch_size",
    "GRAD_ACCUMULATION_STEPS": "accumulation",
    "MAX_STEP": "max_steps",
    "SAVE_INTERVAL": "save_interval",
}
# The earlier scripts misspelt it, and so do the files people keep.
OLD_SPELLINGS = {"GRAD_ACCUMULARION_STEPS": "GRAD_ACCUMULATION_STEPS"}
SAMPLES = ROOT / "assets" / "data"


@dataclass(frozen=True, slots=True)
class Script:
    """A script: what it is, its options, and its constants, for each use.

    `words` are the options that its first words stand for; such a script has no .sh file.
    """

    name: str
    about: str
    options: Mapping[str, str]
    samples: tuple[str, ...]
    constants: Mapping[str, str]
    official: Mapping[str, str] = field(default_factory=dict)
    official_options: Mapping[str, str] = field(default_factory=dict)
    embedded: Mapping[str, str] = field(default_factory=dict)
    embedded_options: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()


_TOOL_ROWS = ("tools_en.jsonl", "tools_zh.jsonl")
_TURNS = {"NUM_GPUS": "1", "MAX_SEQ_LEN": "2048"}
_PAIRS = {"NUM_GPUS": "1", "MAX_SOURCE_LEN": "1024", "MAX_TARGET_LEN": "128"}
# So small a model forgets what it knew unless it goes on learning it; dropout keeps a LoRA of it
# from learning, and decay draws back what no row asks for. The figures: docs/training_options.md.
_REHEARSE = {"mix_tools": "75%"}
_SMALL_LORA = {**_REHEARSE, "lora_dropout": "0", "weight_decay": "3"}
_SHORT = {"DEV_BATCH_SIZE": "4", "GRAD_ACCUMULATION_STEPS": "2", "SAVE_INTERVAL": "30"}

SCRIPTS: dict[str, Script] = {
    script.name: script
    for script in (
        Script(
            "finetune_pt_multiturn",
            "P-Tuning v2 on conversations with tools, in ChatGLM3's official layout.",
            {"method": "ptuning", "layout": "chatglm3"},
            _TOOL_ROWS,
            {"PRE_SEQ_LEN": "128", "LR": "5e-3", **_TURNS, "DEV_BATCH_SIZE": "1",
             "GRAD_ACCUMULATION_STEPS": "16", "MAX_STEP": "1000", "SAVE_INTERVAL": "500"},
            official={"LR": "2e-2"},
            embedded={"LR": "0.3", "PRE_SEQ_LEN": "32", "MAX_STEP": "180", **_SHORT},
            embedded_options=_REHEARSE,
        ),
        Script(
            "finetune_pt",
            "P-Tuning v2 on prompts and responses, as raw text without roles.",
            {"method": "ptuning", "layout": "prompt-response"},
            ("pairs.jsonl",),
            {"PRE_SEQ_LEN": "128", "LR": "5e-3", **_PAIRS, "DEV_BATCH_SIZE": "1",
             "GRAD_ACCUMULATION_STEPS": "32", "MAX_STEP": "1000", "SAVE_INTERVAL": "500"},
            official={"LR": "2e-2"},
            embedded={"LR": "0.3", "PRE_SEQ_LEN": "32", "MAX_STEP": "60", **_SHORT},
        ),
        Script(
            "finetune_ds_multiturn",
            "All weights with deepspeed ZeRO-2, on conversations with tools.",
            {"method": "full", "zero": "2", "layout": "chatglm3"},
            _TOOL_ROWS,
            {"LR": "1e-5", **_TURNS, "NUM_GPUS": "4", "DEV_BATCH_SIZE": "16",
             "GRAD_ACCUMULATION_STEPS": "1", "MAX_STEP": "200", "SAVE_INTERVAL": "50"},
            official={"LR": "5e-5"},  # its LR=1e-4 never reached the trainer
            embedded={"LR": "1e-3", "MAX_STEP": "60", **_SHORT},
            embedded_options=_REHEARSE,
        ),
        Script(
            "finetune_ds",
            "All weights with deepspeed ZeRO-2, on prompts and responses as raw text.",
            {"method": "full", "zero": "2", "layout": "prompt-response"},
            ("pairs.jsonl",),
            {"LR": "1e-5", **_PAIRS, "NUM_GPUS": "4", "DEV_BATCH_SIZE": "4",
             "GRAD_ACCUMULATION_STEPS": "1", "MAX_STEP": "500", "SAVE_INTERVAL": "500"},
            official={"LR": "1e-4"},
            embedded={"LR": "1e-3", "MAX_STEP": "60", **_SHORT},
        ),
        Script(
            "finetune_lora",
            "LoRA on every linear layer. MAX_STEP=0 goes by --epochs (3).",
            {"method": "lora"},
            _TOOL_ROWS,
            {"LORA_RANK": "8", "LORA_ALPHA": "32", "LR": "1e-4", **_TURNS,
             "DEV_BATCH_SIZE": "2", "GRAD_ACCUMULATION_STEPS": "8", "MAX_STEP": "0",
             "SAVE_INTERVAL": "200"},
            official={"NUM_GPUS": "4", "DEV_BATCH_SIZE": "1", "GRAD_ACCUMULATION_STEPS": "1",
                      "MAX_STEP": "500", "SAVE_INTERVAL": "50"},
            embedded={"LR": "3e-3", "MAX_STEP": "180", **_SHORT},
            embedded_options=_SMALL_LORA,
        ),
        Script(
            "finetune_qlora",
            "LoRA over a base held in 4 bits (nf4). MAX_STEP=0 goes by --epochs (3).",
            {"method": "qlora"},
            _TOOL_ROWS,
            {"LORA_RANK": "16", "LORA_ALPHA": "32", "LR": "1e-4", **_TURNS,
             "DEV_BATCH_SIZE": "2", "GRAD_ACCUMULATION_STEPS": "8", "MAX_STEP": "0",
             "SAVE_INTERVAL": "200"},
            official={"LORA_RANK": "64", "LORA_ALPHA": "16", "LR": "2e-4", "MAX_SEQ_LEN": "1024",
                      "DEV_BATCH_SIZE": "8", "GRAD_ACCUMULATION_STEPS": "2",
                      "SAVE_INTERVAL": "500"},
            official_options={"layout": "eos-per-turn"},
            embedded={"LR": "1e-3", "MAX_STEP": "60", **_SHORT},
            embedded_options=_REHEARSE,
        ),
        Script(
            "finetune_hf",
            "DATA_DIR MODEL_DIR CONFIG.yaml [resume], as finetune_hf.py of THUDM/ChatGLM3.",
            {},
            (),
            {},
            words=("data_dir", "model", "config", "resume"),
        ),
    )
}  # fmt: skip


def shell(script: Script) -> str:
    """The text of the script's .sh file."""
    lines = [
        "#!/usr/bin/env bash",
        f"# {script.about}",
        f"#   bash finetune/{script.name}.sh --model THUDM/chatglm3-6b --train-file my.jsonl",
        f"#   LR={script.constants['LR']} MAX_STEP=300 bash finetune/{script.name}.sh",
        "# Typed bare, it trains the embedded model on a shipped sample, in minutes. Flags and a",
        "# --config file win over the constants below; --preset official takes the values of the",
        "# earlier system. Every flag: python -m finetune.train --help",
        "set -euo pipefail",
        "",
        *(_constant(name, value) for name, value in script.constants.items()),
        "",
        'root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"',
        'if [[ "${1:-}" == "--help" ]]; then',
        "  sed -n '2,/^set /{/^set /d;s/^# \\{0,1\\}//p}' \"${BASH_SOURCE[0]}\"",
        f'  echo "Constants:{"".join(f" {name}=${name}" for name in script.constants)}"',
        "  exit 0",
        "fi",
        'PYTHON="${PYTHON:-$(command -v python3 || command -v python)}"',
        'PYTHON="$("$PYTHON" "$root/launch.py" prepare)"',
        'export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"',
        f'exec "$PYTHON" -m finetune.run {script.name} \\',
        *(f'  {name}="${name}" \\' for name in script.constants),
        '  "$@"',
    ]
    return "\n".join(lines) + "\n"


def _constant(name: str, value: str) -> str:
    old = next((wrong for wrong, right in OLD_SPELLINGS.items() if right == name), "")
    inner = f"${{{old}:-{value}}}" if old else value
    return f'{name}="${{{name}:-{inner}}}"'


def usage(script: Script) -> str:
    """What `python -m finetune.run NAME --help` says."""
    first = " ".join(word.upper() for word in script.words) or "[NAME=VALUE ...]"
    said = [f"usage: python -m finetune.run {script.name} {first} [options]", script.about]
    if script.constants:
        values = " ".join(f"{name}={value}" for name, value in script.constants.items())
        said.append(f"Constants: {values}")
        said.append("Typed bare, it trains the embedded model on a shipped sample.")
    return "\n".join([*said, "Every flag: python -m finetune.train --help"])


def write() -> None:
    """Write the .sh files anew."""
    for script in filter(lambda script: not script.words, SCRIPTS.values()):
        file = FOLDER / f"{script.name}.sh"
        file.write_text(shell(script), encoding="utf-8", newline="\n")
        file.chmod(0o755)


if __name__ == "__main__":
    write()

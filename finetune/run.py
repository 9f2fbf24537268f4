"""Run one of the known scripts, with or without bash.

    python -m finetune.run finetune_lora --model THUDM/chatglm3-6b --train-file my.jsonl
    python -m finetune.run finetune_pt MAX_STEP=200 LR=1e-3

Finds or makes launch.py's environment and starts as many processes as there are to be; the
trainer ends with `farewell`. Needs only the standard library until the environment is ready.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.scripts import CONSTANTS, OLD_SPELLINGS, ROOT, SAMPLES, SCRIPTS, Script, usage
from finetune.typed import command, place

if TYPE_CHECKING:
    from finetune.config import TrainConfig
    from finetune.training.machine import Machine

BAD_OPTION = 2
NEEDED = ("yaml", "torch", "transformers")
_ASSIGNMENT = re.compile(r"[A-Z][A-Z_]+=")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = Path(words[0]).name.removesuffix(".sh") if words else "--help"
    script = SCRIPTS.get(name)
    if script is None:
        asked = name in ("--help", "-h")
        lines = [f"  {item.name:24}{item.about}" for item in SCRIPTS.values()]
        said = "usage: python -m finetune.run SCRIPT [NAME=VALUE ...] [options]"
        print("\n".join([said if asked else f"no script {name!r}; there are:", *lines]))
        return 0 if asked else BAD_OPTION
    if "--help" in words or "-h" in words:
        print(usage(script))
        return 0
    if not all(importlib.util.find_spec(module) for module in NEEDED):
        return hand_over(words)
    return train(script, words[1:], os.environ)


def hand_over(words: Sequence[str]) -> int:
    """The same with the Python that launch.py prepares."""
    prepare = [sys.executable, str(ROOT / "launch.py"), "prepare"]
    done = subprocess.run(prepare, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return done.returncode
    again = [done.stdout.strip(), "-m", "finetune.run", *words]
    return subprocess.run(again, env=with_root(os.environ)).returncode


def with_root(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `-m finetune...` is found from any folder."""
    before = environ.get("PYTHONPATH", "")
    if str(ROOT) in before.split(os.pathsep):
        return dict(environ)
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), before]))}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a script starts: the configuration, and what to say about it first."""

    config: TrainConfig
    notes: tuple[str, ...] = ()


def train(script: Script, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Plan, and train to the end; returns the exit code."""
    from finetune.config import to_argv
    from finetune.options.option import BadConfig
    from finetune.training import launching
    from finetune.training.machine import this_machine

    machine = this_machine()
    try:
        plan = plan_of(script, words, environ, machine)
    except BadConfig as error:
        print(error, file=sys.stderr)
        return BAD_OPTION
    place = launching.place(plan.config)
    command = launching.command(place, to_argv(plan.config))
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    print(shlex.join(command), file=sys.stderr, flush=True)
    around = launching.environment(plan.config, place, machine, with_root(environ))
    return launching.start(command, around, Path(plan.config.output_dir))


def plan_of(
    script: Script, words: Sequence[str], environ: Mapping[str, str], machine: Machine
) -> Plan:
    """The configuration of a script with constants and flags. Raises BadConfig.

    Constants set by hand win over the table's; flags and files win over constants.
    """
    from finetune.config import TrainConfig, read_config, run_folder
    from finetune.options.option import BadConfig
    from finetune.options.words import from_command_line

    count = next((i for i, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
    flags = in_place(script, words[count:])
    hand, problems = constants_by_hand(script, words[:count], environ)
    given = {word.name: word.raw for word in from_command_line(TrainConfig, flags).words}
    chosen = choose(script, given, hand, machine)
    own = [part for name, value in chosen.options.items() for part in (_flag(name), value)]
    if chosen.samples:
        own += ["--train-file", *chosen.samples]
    try:
        reading = read_config([*own, *flags], environ, machine)
    except BadConfig as error:
        raise BadConfig([*problems, *error.problems]) from None
    if problems:
        raise BadConfig(problems)
    config = reading.config
    if not config.output_dir:
        now = time.strftime("%Y%m%d-%H%M%S")
        config = replace(config, output_dir=str(run_folder(config, now, ROOT / "runs")))
    return Plan(config, (*chosen.notes, *reading.notes))


def in_place(script: Script, words: Sequence[str]) -> list[str]:
    """The first words of a script that takes some, as the options they stand for."""
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    if not script.words:
        return list(words)
    pairs = zip(script.words, words[:first], strict=False)
    named = [part for name, word in pairs if word for part in (_flag(name), word)]
    return [*named, *words[len(script.words) if first > len(script.words) else first :]]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def constants_by_hand(
    script: Script, assignments: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Constants that somebody set: in the environment, as NAME=VALUE, or by editing the .sh file.

    A .sh file passes all of them; what is the table's own value was not set by anybody.
    """
    from finetune.config import TrainConfig
    from finetune.options.option import options, read_value

    names = {**{name: name for name in script.constants}, **OLD_SPELLINGS}
    said = [word.partition("=")[::2] for word in assignments]
    wrong = [
        f"{name} is no constant of {script.name}; it has {', '.join(script.constants)}"
        for name, _ in said
        if name not in names
    ]
    found = {right: environ[name] for name, right in names.items() if environ.get(name)}
    for name, value in said:
        right = names.get(name)
        if right and value and value != script.constants[right]:
            found[right] = value
    for name, value in list(found.items()):
        try:
            read_value(options(TrainConfig)[CONSTANTS[name]], value)
        except ValueError as error:
            wrong.append(f"{name} is {value!r}; {error}")
            del found[name]
    return found, wrong


@dataclass(slots=True)
class Chosen:
    """Options that a script adds to what was given."""

    options: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose(
    script: Script, given: Mapping[str, object], hand: Mapping[str, str], machine: Machine
) -> Chosen:
    """The script's options beside those that were given by flag or file."""
    official = given.get("preset") == "official"
    embedded = not given.get("model")
    constants, fixed = dict(script.constants), dict(script.options)
    if official:
        constants |= script.official
        fixed |= script.official_options
    elif embedded:
        constants |= script.embedded
        fixed |= script.embedded_options
    constants |= hand
    chosen = Chosen()
    on_cpu = given.get("device") == "cpu" or not machine.gpus
    _fewer(constants, fixed, hand, 0 if on_cpu else len(machine.gpus), chosen)
    if {"zero", "deepspeed", "fsdp"} & set(given):
        fixed.pop("zero", None)
    options = fixed | {CONSTANTS[name]: value for name, value in constants.items()}
    chosen.options = {name: value for name, value in options.items() if name not in given}
    if "train_file" not in given and script.samples:
        chosen.samples = [str(SAMPLES / name) for name in script.samples]
        names = " ".join(script.samples)
        chosen.notes.append(f"no --train-file was given: the shipped sample trains, {names}")
    if embedded and script.samples:
        changed = {n: v for n, v in script.embedded.items() if n not in hand and not official}
        values = [f"{name}={value}" for name, value in changed.items()]
        more = {} if official else script.embedded_options
        values += [f"{_flag(n)} {value}" for n, value in more.items() if n not in given]
        trains = " ".join(["no --model was given: the embedded model trains", *values])
        chosen.notes.append(trains)
    return chosen


def _fewer(
    constants: dict[str, str],
    fixed: dict[str, str],
    hand: Mapping[str, str],
    gpus: int,
    chosen: Chosen,
) -> None:
    """Where nobody chose NUM_GPUS: no more processes than GPUs, and no ZeRO on the CPU."""
    if "NUM_GPUS" in hand or int(constants.get("NUM_GPUS", 0)) <= gpus:
        return
    if int(constants["NUM_GPUS"]) > 1:
        chosen.notes.append(f"GPUs visible here: {gpus}; NUM_GPUS={max(1, gpus)}")
    constants["NUM_GPUS"] = str(max(1, gpus))
    if not gpus and fixed.pop("zero", ""):
        chosen.notes.append("one CPU process trains without deepspeed; NUM_GPUS=2 uses it")


def farewell(config: TrainConfig, tools: str = "") -> str:
    """How to chat with what was trained: by a command, and by the page's own button.

    `tools` is a data file whose tools are offered.
    """
    folder = Path(config.output_dir)
    model = ["--model", place(config.model)] if config.model else []
    if config.method in ("full", "freeze"):
        opened = ["--model", place(folder / "model")]
        field, buttons = "path", ("look", "open")
    else:
        bits = 4 if config.method == "qlora" else config.quantization_bit
        model += ["--tokenizer", place(config.tokenizer)] if config.tokenizer else []
        model += ["--quantization-bit", str(bits)] if bits else []
        opened, field = [*model, "--adapter", place(folder / "adapter")], "adapter_path"
        buttons = ("add",)
    raw = ["--raw"] if config.layout in ("prompt-response", "chatglm1") else []
    page = command("launch.py", *opened)
    offer = ["--tools", place(tools)] if tools and not raw else []
    terminal = command("-m", "finetune.inference", *opened, *raw, *offer)
    pressed = ", then ".join(map(_on_the_page, buttons))
    return (
        f"The run is in {folder}.\n"
        f"Chat with it on the page:    {page}\n"
        f"  where it is open already:  in the tab {_on_the_page('tab')}, put {opened[-1]}\n"
        f"                             under {_on_the_page(field)} and press {pressed}\n"
        f"Chat with it here:           {terminal}"
    )


def _on_the_page(name: str) -> str:
    """A text of the Models tab as the page shows it, in both languages."""
    texts = [
        json.loads((ROOT / "assets" / "i18n" / f"{language}.json").read_text(encoding="utf-8"))
        for language in ("en", "zh")
    ]
    return " / ".join(f'"{text[f"models.{name}"]}"' for text in texts)


if __name__ == "__main__":
    sys.exit(main())

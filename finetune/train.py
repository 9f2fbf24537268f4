"""Train a model: LoRA, QLoRA, P-Tuning v2, all weights, or the last layers.

    python -m finetune.train --train-file my.jsonl                        (the embedded model)
    python -m finetune.train --model THUDM/chatglm3-6b --method ptuning --train-file my.jsonl
    python -m finetune.train --config runs/X/config.yaml --output-dir runs/X --resume last

A run is a folder (training/run_folder.py); the exit code and the last line say how it ended
(training/ends.py). Killed at any moment it goes on from its last checkpoint as if nothing had
happened. Not covered: going on with another number of processes.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy
import torch

from finetune import (
    before,  # noqa: F401  (first)
    config,
)
from finetune.config import TrainConfig
from finetune.files.offers import offered
from finetune.files.sources import sources
from finetune.methods import METHODS, lora, ptuning
from finetune.options.checks import model_problems
from finetune.options.option import BadConfig
from finetune.run import farewell
from finetune.training import (
    checkpoints,
    ends,
    launching,
    machines,
    pickles,
    reports,
    resume,
    wiring,
)
from finetune.training.checkpoints import Checkpoint
from finetune.training.ends import Stop
from finetune.training.loop import Loop, Parts
from finetune.training.machine import this_machine
from finetune.training.machines import Crew
from finetune.training.resume import About
from finetune.training.run_folder import InUse, RunFolder
from glm.adapters.card import Card, base_fingerprint
from glm.checkpoint.hub import fetch, is_hub_id
from glm.checkpoint.recognise import EMBEDDED, ModelInfo, recognise
from glm.errors import BadRequest, GlmError
from glm.load import load_model

RUNS = Path(__file__).parent.parent / "runs"


def main(argv: Sequence[str] | None = None) -> int:
    """Read the options, take the folder, train; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    crew = Crew.here()
    try:
        cfg = config.load_config(words)
        reports.require(cfg.report_to)
        if launching.needs_launcher(cfg, os.environ):
            return _several(cfg)
        run = _folder(cfg, crew)
        with ExitStack() as held:
            if crew.first:
                held.enter_context(run.claimed())
            return _guarded(cfg, run, crew)
    except (BadConfig, InUse, BadRequest) as error:
        print(error, file=sys.stderr)
        return ends.REFUSED


def train(cfg: TrainConfig, run: RunFolder, crew: Crew, stop: Stop) -> Loop:
    """Load, prepare, loop, save."""
    # ---- load ----
    info = _open(cfg)
    device = machines.device_of(cfg, crew)
    kind = machines.dtype_of(cfg, info, device)
    machines.threads(info, device)
    if crew.first:
        checkpoints.clean(run.checkpoints)
    last = resume.find(run, cfg.resume)
    model = _model(cfg, info, last, device)
    # not before the model is open: ZeRO-3 would take part in that
    arguments = machines.arguments(cfg, run, model, device, kind)
    crew.check(arguments)

    # ---- prepare ----
    data = wiring.prepare(cfg, info, model, crew)
    wiring.make_fast(cfg, model)
    steps = cfg.max_steps or data.steps
    about = About(
        resume.options(cfg), info.name, base_fingerprint(info), data.hash, crew.world, steps
    )
    if last is not None:
        about, stop.step = _same_run(last, about), last.step
        pickles.check(last.path, bool(arguments.deepspeed))
    card = Card(info.name, about.base_hash, info.dialect, data.layout, data.hash, str(run.path))
    arguments.max_steps = about.steps
    parts = Parts(
        model, METHODS[cfg.method], cfg, info, card, about, run, data.stream, data.dev, stop
    )
    loop = Loop(parts, arguments)
    if crew.first:
        loop.progress.reports = reports.opened(cfg, run, last.step if last else 0)
        _begin(loop, last)
        for line in data.told:
            run.say(line)
        if cfg.preview:
            page = run.path / "preview.html"
            page.write_text(data.page(), encoding="utf-8")
            run.say(f"what is learnt: {page}")

    # ---- loop ----
    with wiring.quantised_as_loaded(model), loop.progress.reports or nullcontext():
        loop.run(last)

    # ---- save ----
    if crew.first:
        _hand_over(loop)
    return loop


def _open(cfg: TrainConfig) -> ModelInfo:
    name = cfg.model or str(EMBEDDED)
    folder = fetch(name, lambda message, fraction: None) if is_hub_id(name) else Path(name)
    info = recognise(folder, cfg.tokenizer or None)
    if is_hub_id(name):
        info = replace(info, name=name)
        if wrong := model_problems(cfg, info):
            raise BadConfig(wrong)
    return info


def _model(
    cfg: TrainConfig, info: ModelInfo, last: Checkpoint | None, device: torch.device
) -> torch.nn.Module:
    """The base with what is to learn in it; of a method that learns the whole, the last one."""
    random.seed(cfg.seed)
    numpy.random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    method = METHODS[cfg.method]
    kind = machines.dtype_of(cfg, info, device)
    opened = recognise(last.path, info.tokenizer) if last and method.whole else info
    name = "float32" if opened is not info else str(kind).removeprefix("torch.")
    model = load_model(opened, str(device), name, method.bits(cfg))
    if cfg.attention != "auto":
        model.set_attn_implementation(cfg.attention)
    if cfg.adapter:
        begin = {"ptuning": ptuning.continued}.get(cfg.method, lora.continued)
        model = begin(model, Path(cfg.adapter), info)
    else:
        model = method.apply(model, cfg)
    if machines.checkpoints_activations(cfg, info):
        machines.turn_on_checkpointing(model)
    return model


def _same_run(last: Checkpoint, about: About) -> About:
    saved = About.read(last)
    resume.check(saved, about, last.path)
    return replace(about, steps=saved.steps)


def _begin(loop: Loop, last: Checkpoint | None) -> None:
    """Nothing is in the way any more: write down what runs, and say it."""
    parts = loop.parts
    parts.run.begin(config.to_argv(parts.cfg))
    config.save(replace(parts.cfg, output_dir=str(parts.run.path), resume=""), parts.run.config)
    parts.run.forget_after(last.step if last else 0)
    learns = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in parts.model.parameters())
    parts.run.say(
        f"{parts.cfg.method} on {parts.info.name} ({parts.info.family}), {loop.together()}: "
        f"{learns:,} of {whole:,} numbers learn, {_steps(parts.about.steps)} {_of(parts)}"
    )
    if last is not None:
        parts.run.say(f"going on after step {last.step}, from {last.path}")
        if later := checkpoints.set_aside(parts.run.checkpoints, last.step):
            what = ", ".join(map(str, later))
            parts.run.say(f"set aside: what was saved of step {what} ({checkpoints.ASIDE})")


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _of(parts: Parts) -> str:
    """What a step is made of: `of 16 rows (2 x 8)`; of packed rows, of sequences."""
    numbers = [parts.cfg.batch_size, parts.cfg.accumulation, parts.about.world]
    several = [str(number) for number in numbers if number > 1]
    factors = f" ({' x '.join(several)})" if len(several) > 1 else ""
    what = "sequence" if parts.cfg.packing else "row"
    count = math.prod(numbers)
    return f"of {count} {what}{'' if count == 1 else 's'}{factors}"


def _hand_over(loop: Loop) -> None:
    """The best checkpoint, else the last, becomes the result."""
    parts = loop.parts
    found = checkpoints.complete(parts.run.checkpoints)
    best = [item for item in found if item.step == loop.state.best_global_step]
    chosen = (best or found)[0]
    place = parts.run.model if parts.method.whole else parts.run.adapter
    checkpoints.copy_result(chosen, place)
    loop.progress.draw()
    word = "the best" if best else "the last"
    parts.run.say(f"saved {place}, {word} checkpoint, of step {chosen.step}")


def _guarded(cfg: TrainConfig, run: RunFolder, crew: Crew) -> int:
    """Whatever happens, the folder says how it ended."""
    stop, loop = Stop(), None
    try:
        with stop.listening():
            loop = train(cfg, run, crew, stop)
    except (Exception, KeyboardInterrupt) as error:  # border: the job
        if not crew.first:
            raise
        checkpoints.clean(run.checkpoints)
        return ends.tell(run, error, stop)
    if not crew.first:
        return 0
    if stop.signal:
        code = ends.SIGNALLED + stop.signal
        run.end(code, f"stopped after step {loop.state.global_step}. {ends.how_to_go_on(run)}")
        return code
    run.end(ends.FINISHED, f"trained {_steps(loop.state.global_step)}")
    print(farewell(replace(cfg, output_dir=str(run.path)), _taught_tools(cfg)))
    return 0


def _taught_tools(cfg: TrainConfig) -> str:
    """The first data file with tools in it."""
    for item in sources(cfg.train_file, cfg.data_dir):
        with suppress(GlmError, OSError):  # it may be gone by now, and the run is well
            if offered(item.path):
                return str(item.path)
    return ""


def _folder(cfg: TrainConfig, crew: Crew) -> RunFolder:
    now = time.strftime("%Y%m%d-%H%M%S")
    if crew.world > 1 and not cfg.output_dir:
        raise BadRequest("several processes need an --output-dir, so that all have the same")
    return RunFolder(config.run_folder(cfg, now, RUNS).expanduser())


def _several(cfg: TrainConfig) -> int:
    """Start the processes that were asked for, and wait for them."""
    place = launching.place(cfg)
    if not cfg.output_dir:
        now = time.strftime("%Y%m%d-%H%M%S")
        cfg = replace(cfg, output_dir=str(config.run_folder(cfg, now, RUNS)))
    around = launching.environment(cfg, place, this_machine(), os.environ)
    command = launching.command(place, config.to_argv(cfg))
    return launching.start(command, around, Path(cfg.output_dir))


if __name__ == "__main__":
    Crew.here().leave(main())

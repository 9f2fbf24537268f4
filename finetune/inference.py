"""Ask a model with what was trained for it, in the terminal.

    python -m finetune.inference --model THUDM/chatglm3-6b --adapter runs/my-run/adapter
    python -m finetune.inference --pt-checkpoint output/checkpoint-1000 --raw

A turn of a chat with --adapter; raw text, continued as it is, with --raw (what finetune_pt.sh and
the layouts prompt-response and chatglm1 teach; an adapter made here says so itself). The flags of
the earlier inference.py are known; how long a prefix is and a LoRA's rank are read from the files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.options.option import (
    BadConfig,
    Word,
    help_text,
    named,
    normal,
    opt,
    positive,
    read_value,
    split_flags,
    unknown,
)
from glm.errors import GlmError
from glm.messages import Conversation, Finish, Message, Text

USAGE = "usage: python -m finetune.inference [--model M] [--adapter A] [--raw] [--prompt TEXT]"
RAW_LAYOUTS = ("prompt-response", "chatglm1")
# Of the earlier inference.py: the files say these.
READ_FROM_FILES = ("pt_pre_seq_len", "pre_seq_len", "lora_rank", "lora_dropout")


@dataclass(frozen=True)
class Asking:
    """Options of a question in the terminal."""

    model: str = opt("", "folder or hub id of the base (the embedded model)")
    tokenizer: str = opt("", "folder of the tokenizer, if elsewhere")
    adapter: str = opt(
        "",
        "LoRA or P-Tuning v2: a folder or a file",
        aliases=("pt_checkpoint", "ptuning_checkpoint", "lora_path"),
    )
    lora_alpha: float | None = opt(
        None, "alpha of a LoRA file that does not say it", minimum=0.01, maximum=65536
    )
    raw: bool | None = opt(None, "continue the text as it is; auto: as the adapter was trained")
    prompt: str = opt("", "ask this and end; else lines are read until an empty one")
    max_new_tokens: int = opt(
        512, "most tokens of an answer", minimum=1, maximum=1 << 20, aliases=("max_tokens",)
    )
    temperature: float = opt(0.0, "0 always takes the likeliest token", minimum=0, maximum=100)
    top_p: float = opt(0.8, "least share of likely tokens kept", minimum=0, maximum=1)
    seed: int = opt(0, "seed where the temperature is not 0", minimum=0, maximum=(1 << 32) - 1)
    device: str = opt("auto", "where the model runs: auto, cpu, cuda, cuda:1, mps")
    precision: str = opt(
        "auto",
        "number type of the weights",
        choices=("auto", "float32", "bfloat16", "float16"),
        aliases=("dtype",),
    )
    quantization_bit: int = opt(0, "hold the base in 8 or 4 bits; 0: as it is", choices=(0, 8, 4))


def read(argv: Sequence[str]) -> Asking:
    """The options of a command line. Raises BadConfig with everything that is wrong."""
    flags, loose = split_flags(argv)
    wrong = [f"{word!r} stands before any option; did you mean --prompt?" for word in loose]
    values: dict[str, Any] = {}
    for flag in flags:
        if normal(flag.name) in READ_FROM_FILES:
            continue
        try:
            flag = positive(Asking, flag)
            if option := named(Asking).get(normal(flag.name)):
                values[option.name] = read_value(option, _one_text(flag))
            else:
                wrong.append(f"{flag.source}: {unknown(Asking, flag.name)}")
        except ValueError as error:
            wrong.append(f"{flag.source} is {flag.raw!r}; {error}")
    if wrong:
        raise BadConfig(wrong)
    return Asking(**values)


def _one_text(flag: Word) -> Any:
    """A prompt typed without quotes is still one text."""
    return " ".join(flag.raw) if isinstance(flag.raw, list) else flag.raw


def main(argv: Sequence[str] | None = None, ask: Callable[[], str] | None = None) -> int:
    """Open the model, answer, and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--help" in words or "-h" in words:
        print(help_text(Asking, USAGE))
        return 0
    try:
        wanted = read(words)
        with open_model(wanted) as model:
            raw = is_raw(wanted, model)
            for question in [wanted.prompt] if wanted.prompt else iter(ask or _line, ""):
                answer(model, question, wanted, raw)
    except BadConfig as error:
        print(error, file=sys.stderr)
        return 2
    except GlmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def open_model(wanted: Asking) -> Any:
    """The model with its adapter, which answers by default. Raises CheckpointError."""
    import glm

    how = {
        "device": wanted.device,
        "dtype": wanted.precision,
        "tokenizer": wanted.tokenizer or None,
    }
    model = glm.open(wanted.model or None, bits=wanted.quantization_bit or None, **how)
    if wanted.adapter:
        try:
            shelved = model.manager.add_adapter(Path(wanted.adapter), alpha=wanted.lora_alpha)
        except BaseException:
            model.close()
            raise
        model.address = f"{model.address}:{shelved.name}"
    return model


def is_raw(wanted: Asking, model: Any) -> bool:
    """What was asked for, else what the adapter was trained with."""
    if wanted.raw is not None:
        return wanted.raw
    infos = [shelved.info for shelved in model.manager.adapters() if shelved.info]
    return any(info.layout in RAW_LAYOUTS for info in infos if _same(info.path, wanted.adapter))


def _same(path: Path, text: str) -> bool:
    return bool(text) and Path(text).expanduser().resolve() == path.expanduser().resolve()


def answer(model: Any, question: str, wanted: Asking, raw: bool) -> str:
    """Print an answer as it comes. Raises what the engine says against the question."""
    sampling = {
        "max_tokens": wanted.max_new_tokens,
        "temperature": wanted.temperature,
        "top_p": wanted.top_p,
        "seed": wanted.seed,
    }
    conversation = Conversation((Message("user", question),))
    return show(model.stream(conversation, raw=raw, **sampling))


def show(events: Iterable[Any]) -> str:
    """Print events; returns the text of the answer and of the calls in it."""
    for event in events:
        if isinstance(event, Text):
            print(event.text, end="", flush=True)
        elif isinstance(event, Finish):
            calls = [f"{call.name} {dict(call.arguments)}" for call in event.message.calls]
            print(
                "", *calls, *filter(None, [event.error]), sep="\n" if calls or event.error else ""
            )
            return event.message.content
    return ""


def _line() -> str:
    try:
        return input("Prompt: ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    sys.exit(main())

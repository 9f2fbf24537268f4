"""Ask a model with what was trained for it, in the terminal.

    python -m finetune.inference --model THUDM/chatglm3-6b --adapter runs/my-run/adapter
    python -m finetune.inference --pt-checkpoint output/checkpoint-1000 --raw
    python -m finetune.inference --adapter runs/my-run/adapter --tools my.jsonl

A turn of a chat with --adapter; raw text, continued as it is, with --raw (what finetune_pt.sh and
the layouts prompt-response and chatglm1 teach; an adapter made here says so itself). The flags of
the earlier inference.py are known; how long a prefix is and a LoRA's rank are read from the files.
With --tools a call is printed, and what it brought is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finetune.files.offers import LOOKED, offered
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
from glm.errors import BadRequest, GlmError
from glm.messages import Conversation, Finish, Message, Text, ToolCall, ToolSpec

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
    tools: str = opt("", "offer the tools of this data file, or of this JSON list of tools")
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


def main(argv: Sequence[str] | None = None, ask: Callable[[str], str] | None = None) -> int:
    """Open the model, answer, and return the exit code. `ask` has a line typed."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--help" in words or "-h" in words:
        print(help_text(Asking, USAGE))
        return 0
    ask = ask or _line
    try:
        wanted = read(words)
        tools = _tools(wanted)
        with open_model(wanted) as model:
            raw = is_raw(wanted, model)
            if raw and tools:
                raise BadRequest("raw text has no tools: leave out --tools, or say --no-raw")
            alone = [wanted.prompt] if wanted.prompt else None
            for question in alone or iter(partial(ask, "Prompt: "), ""):
                asked = Conversation((Message("user", question),), tools)
                answer(model, asked, wanted, raw, None if alone else ask)
    except BadConfig as error:
        print(error, file=sys.stderr)
        return 2
    except GlmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _tools(wanted: Asking) -> tuple[ToolSpec, ...]:
    if not wanted.tools:
        return ()
    found = offered(Path(wanted.tools))
    if not found:
        raise BadRequest(f"{wanted.tools}: no tools are in its first {LOOKED} rows")
    return found


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


def answer(
    model: Any, asked: Conversation, wanted: Asking, raw: bool, ask: Callable[[str], str] | None
) -> None:
    """Print an answer as it comes, and what follows when `ask` says what its calls brought.

    Raises what the engine says against the question.
    """
    sampling = {
        "max_tokens": wanted.max_new_tokens,
        "temperature": wanted.temperature,
        "top_p": wanted.top_p,
        "seed": wanted.seed,
    }
    said = show(model.stream(asked, raw=raw, **sampling))
    while said.calls and ask:
        brought = []
        for call in said.calls:
            seen = ask(f"What {call.name} brought: ")
            if not seen:
                return
            brought.append(Message("tool", seen, name=call.name, call_id=call.id))
        asked = asked.add(said, *brought)
        said = show(model.stream(asked, raw=raw, **sampling))


def show(events: Iterable[Any]) -> Message:
    """Print events; returns the answer."""
    for event in events:
        if isinstance(event, Text):
            print(event.text, end="", flush=True)
        elif isinstance(event, Finish):
            calls = [_written(call) for call in event.message.calls]
            print(
                "", *calls, *filter(None, [event.error]), sep="\n" if calls or event.error else ""
            )
            return event.message
    return Message("assistant")


def _written(call: ToolCall) -> str:
    return f"{call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}"


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    sys.exit(main())

"""The options of `python launch.py`: one field each, with its environment variables.

A field carries type, default, help, choices and range; the command line, the environment and
the checks come from it. Order: default < environment < command line. Every option `--some-name`
is also `GLM_SOME_NAME`; the names other tools taught people are listed as `env`.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from launcher.problems import BadOption

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.0.0.1", "localhost", "::1")
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def opt(default: Any, help: str, **about: Any) -> Any:
    """A field with its help; `about` may hold env, also, choices, minimum, maximum, metavar.

    `env` and `also` are other names of the variable and of the flag.
    """
    return field(default=default, metadata={"help": help, **about})


@dataclass(frozen=True)
class Options:
    """What a start was asked for, checked."""

    model: str = opt("", "folder or hub id to open (the built-in model)", env=("MODEL_PATH",))
    tokenizer: str = opt("", "folder of the tokenizer, if elsewhere", env=("TOKENIZER_PATH",))
    adapter: str = opt(
        "",
        "LoRA or P-Tuning v2 to answer with: a folder or a file",
        env=("PT_PATH", "PT_CHECKPOINT"),
    )
    device: str = opt("auto", "where the model runs: auto, cpu, cuda, cuda:1, mps")
    dtype: str = opt(
        "auto",
        "number type of the weights; file is the file's own, which is mapped and not copied",
        choices=("auto", "file", "float32", "bfloat16", "float16"),
    )
    quantization_bit: Literal["none", "8", "4"] = opt(
        "none",
        "open the model in 8 or 4 bit: less memory, a little less exact",
        env=("QUANTIZATION_BIT",),
        also=("--quantization_bit",),
    )
    lang: str = opt("auto", "language of the page", choices=("auto", "zh", "en"))
    # Beside the program: whoever moves, backs up or deletes the folder has everything in it.
    data_dir: str = opt(str(ROOT / "data"), "folder for conversations and settings")
    interpreter: Literal["auto", "bubblewrap", "landlock", "none", "off"] = opt(
        "auto",
        "isolation of the Python interpreter and of pasted tools: auto takes the best that works, "
        "bubblewrap or landlock that one or nothing, none runs the operator's code without, "
        "off runs no code",
    )
    host: str = opt("127.0.0.1", "address to listen on", env=("GRADIO_SERVER_NAME",))
    port: int = opt(7860, "port", env=("GRADIO_SERVER_PORT",), minimum=1, maximum=65535)
    listen: bool = opt(False, "listen on every address of this machine; asks for a login")
    share: bool = opt(False, "make a public link; asks for a login", env=("GRADIO_SHARE",))
    auth: tuple[str, ...] = opt(
        (), "USER:PASSWORD, or a file of USER:HASH lines; the first account is the operator"
    )
    api_key: tuple[str, ...] = opt((), "key for programs (Bearer)", env=("API_KEY",))
    allow_host: tuple[str, ...] = opt((), "another host name under which the page is reached")
    root_path: str = opt(
        "", "path or URL under which a proxy serves the page", env=("GRADIO_ROOT_PATH",)
    )
    open: bool | None = opt(None, "open the page in a browser (when there is a desktop)")

    @property
    def bits(self) -> int | None:
        """What `--quantization-bit` says, as a number."""
        return None if self.quantization_bit == "none" else int(self.quantization_bit)

    @property
    def address(self) -> str:
        """The address to bind: --host as given, else every address with --listen."""
        if self.listen and self.host in LOOPBACK:
            return "0.0.0.0"
        return self.host

    @property
    def public(self) -> bool:
        """Whether anybody but the person at this machine can reach the page."""
        beyond = self.address not in LOOPBACK
        return beyond or self.share or bool(self.root_path or self.allow_host)


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Options from the command line and the environment.

    Raises BadOption that names every wrong value; argparse ends the program on an unknown option.
    """
    given = vars(_parser().parse_args(list(argv)))
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for item, kind in _fields():
        source, raw = f"--{_dashed(item.name)}", given[item.name]
        if raw is None:
            source, raw = _from_environment(item, environ)
        if raw is None:
            continue
        try:
            values[item.name] = _checked(item, kind, raw)
        except ValueError as error:
            wrong.append(f"{source} is {raw!r}; {error}")
    if wrong:
        raise BadOption("; ".join(wrong))
    return Options(**values)


def _fields() -> list[tuple[dataclasses.Field[Any], Any]]:
    kinds = typing.get_type_hints(Options)
    return [(item, kinds[item.name]) for item in dataclasses.fields(Options)]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python launch.py",
        description="Start GLM Workbench. "
        "Other words than options: prepare, test, lint, hash-password.",
        epilog="Every option can also be set as an environment variable, GLM_<OPTION>.",
        allow_abbrev=False,
    )
    for item, kind in _fields():
        about = item.metadata
        words = about["help"].replace("%", "%%")
        env = ", ".join(_names(item))
        flag = f"--{_dashed(item.name)}"
        if kind in (bool, bool | None):
            action: Any = argparse.BooleanOptionalAction
            parser.add_argument(flag, action=action, default=None, help=f"{words} [{env}]")
            continue
        if item.default not in ("", ()):
            words += f" (default {item.default})"
        parser.add_argument(
            flag,
            *about.get("also", ()),
            action="append" if kind == tuple[str, ...] else "store",
            default=None,
            metavar=about.get("metavar") or item.name.rpartition("_")[2].upper(),
            help=f"{words} [{env}]",
        )
    return parser


def _names(item: dataclasses.Field[Any]) -> tuple[str, ...]:
    return (f"GLM_{item.name.upper()}", *item.metadata.get("env", ()))


def _from_environment(
    item: dataclasses.Field[Any], environ: Mapping[str, str]
) -> tuple[str, str | None]:
    for name in _names(item):
        if environ.get(name):
            return name, environ[name]
    return "", None


def _checked(item: dataclasses.Field[Any], kind: Any, raw: Any) -> Any:
    if kind == tuple[str, ...]:
        return tuple(raw) if isinstance(raw, list) else tuple(filter(None, raw.split(",")))
    if kind in (bool, bool | None):
        return _switch(raw)
    if kind is int:
        return _number(raw, item.metadata["minimum"], item.metadata["maximum"])
    choices = item.metadata.get("choices") or typing.get_args(kind)
    if choices and raw not in choices:
        raise ValueError(f"allowed: {', '.join(choices)}")
    return raw


def _switch(raw: bool | str) -> bool:
    if isinstance(raw, bool):
        return raw
    if raw.lower() in YES + NO:
        return raw.lower() in YES
    raise ValueError("allowed: true, false")


def _number(raw: str, minimum: int, maximum: int) -> int:
    if not raw.isdecimal() or not minimum <= int(raw) <= maximum:
        raise ValueError(f"a whole number from {minimum} to {maximum} is needed")
    return int(raw)

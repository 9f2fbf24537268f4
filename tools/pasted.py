"""A Python function that a visitor pastes becomes a tool.

Its schema is read from the source's syntax tree: nothing of it runs in this process, not even an
annotation. A call runs it once in the sandbox, in the conversation's folder; without isolation it
is refused. Not promised: state from one call to the next.
"""

from __future__ import annotations

import ast
import base64
import inspect
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glm.cancel import Cancel
from glm.errors import BadRequest, NotAllowed, ToolError
from glm.messages import ToolResult
from tools import results, sandbox, scratch, signature, watch
from tools.registry import Context, Tool

SECONDS = 20.0
MAX_SOURCE = 20_000
MAX_ANSWER = 8 << 20  # bytes
LIMITS = watch.Limits(memory=1 << 30, cpu=30, processes=16)
RUNNER = Path(__file__).with_name("pasted_runner.py")
DECORATORS = ("tool", "register_tool")
TYPES: Mapping[str, Any] = {
    **{kind.__name__: kind for kind in (str, int, float, bool, list, dict, tuple, set, frozenset)},
    **{name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")},
    **{name: getattr(typing, name) for name in ("Annotated", "List", "Dict", "Tuple", "Set")},
    "None": None,
}
Definition = ast.FunctionDef | ast.AsyncFunctionDef


def pasted(source: str, box: sandbox.Sandbox, seconds: float = SECONDS) -> Tool:
    """The tool of a pasted source.

    Raises NotAllowed without isolation, BadRequest in one sentence for a source that has not one
    function (helpers start with _) whose parameters have types JSON can hold.
    """
    if not box.isolated:
        raise NotAllowed(f"a pasted function needs a sandbox to run in. {box.sentence}")
    read = described(definition(source))
    names = {key: kind.__name__ for key, kind in read.builds.items()}
    box = replace(box, limits=LIMITS)

    def run(arguments: dict[str, Any], context: Context, cancel: Cancel) -> Any:
        given = {**dict.fromkeys(read.absent), **arguments}
        call = {"name": read.spec.name, "arguments": given, "builds": names}
        return answer(called(box, context.folder, (source, call), time_limit(seconds, cancel)))

    return Tool(read.spec, run, origin="pasted", timeout=seconds + 10)


# ---- reading the source ---------------------------------------------------------------------


def definition(source: str) -> Definition:
    """The one function of a source that is the tool."""
    if len(source) > MAX_SOURCE:
        raise BadRequest(f"the function is longer than {MAX_SOURCE} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
    except SyntaxError as error:
        raise BadRequest(f"line {error.lineno} is no Python: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadRequest("this is no Python that can be read") from error
    functions = [node for node in body if isinstance(node, Definition)]
    marked = [node for node in functions if any(map(is_mark, node.decorator_list))]
    found = marked or [node for node in functions if not node.name.startswith("_")]
    if not found:
        raise BadRequest("paste a Python function: def name(parameter: type): ...")
    if len(found) > 1:
        names = ", ".join(node.name for node in found[:5])
        raise BadRequest(f"paste one function, not {names}; begin the names of helpers with _")
    return found[0]


def is_mark(decorator: ast.expr) -> bool:
    """Whether it says that this function is the tool."""
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    return isinstance(decorator, ast.Name) and decorator.id in DECORATORS


def described(node: Definition) -> signature.Signature:
    """The signature, read of a function that has the same face and does nothing."""
    try:
        face = stand_in(node)
        return signature.read(face)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(results.one_line(str(error))) from error


def stand_in(node: Definition) -> Callable[..., Any]:
    def face() -> None: ...

    face.__name__ = face.__qualname__ = node.name
    face.__doc__ = ast.get_docstring(node)
    parameters = list(parameters_of(node))
    face.__annotations__ = {
        item.name: item.annotation for item in parameters if item.annotation is not item.empty
    }
    face.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return face


def parameters_of(node: Definition) -> list[inspect.Parameter]:
    """Its parameters with types for annotations; a default that is no literal is only "there"."""
    where, kinds = node.args, inspect.Parameter
    plain = [*where.posonlyargs, *where.args]
    padding: list[ast.expr | None] = [None] * (len(plain) - len(where.defaults))
    named: list[tuple[ast.arg, ast.expr | None, Any]] = [
        (
            argument,
            default,
            kinds.POSITIONAL_ONLY if i < len(where.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD,
        )
        for i, (argument, default) in enumerate(
            zip(plain, [*padding, *where.defaults], strict=True)
        )
    ]
    if where.vararg:
        named.append((where.vararg, None, kinds.VAR_POSITIONAL))
    for argument, default in zip(where.kwonlyargs, where.kw_defaults, strict=True):
        named.append((argument, default, kinds.KEYWORD_ONLY))
    if where.kwarg:
        named.append((where.kwarg, None, kinds.VAR_KEYWORD))
    return [
        kinds(
            argument.arg,
            kind,
            default=kinds.empty if default is None else literal(default),
            annotation=type_of(argument.annotation) if argument.annotation else kinds.empty,
        )
        for argument, default, kind in named
    ]


def literal(node: ast.expr) -> Any:
    """A default's value; None, which no schema tells, where only running could find it."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def type_of(node: ast.expr) -> Any:
    """The type an annotation names. Raises TypeError for one that is not in the list."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return type_of(ast.parse(node.value, mode="eval").body)
        except SyntaxError as error:
            raise TypeError(f"{node.value[:40]!r} is no type") from error
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    if name in TYPES:
        return TYPES[name]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[type_of(node.left), type_of(node.right)]  # noqa: UP007
    if isinstance(node, ast.Subscript):
        return subscripted(node)
    raise TypeError(f"'{ast.unparse(node)[:60]}' is not a type JSON has; use str, int, list ...")


def subscripted(node: ast.Subscript) -> Any:
    """list[int], Literal["a", "b"], Annotated[int, "what it is", True]."""
    outer = type_of(node.value)
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer is typing.Literal:
        values: list[Any] = [ast.literal_eval(item) for item in inner]
    elif outer is typing.Annotated:
        values = [type_of(inner[0]), *(literal(item) for item in inner[1:])]
    else:
        values = [Ellipsis if is_dots(item) else type_of(item) for item in inner]
    try:
        return outer[tuple(values) if len(values) != 1 else values[0]]
    except TypeError as error:
        raise TypeError(f"'{ast.unparse(node)[:60]}' is not a type") from error


def is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, types.EllipsisType)


# ---- running it -----------------------------------------------------------------------------


def time_limit(seconds: float, cancel: Cancel) -> Callable[[], str]:
    """What asks whether it is time to stop, and why."""
    end = time.monotonic() + seconds

    def why() -> str:
        if cancel.is_set():
            return "the function was stopped"
        return f"the function ran longer than {seconds:.3g} s" if time.monotonic() > end else ""

    return why


def called(
    box: sandbox.Sandbox, folder: Path, work: tuple[str, Any], stop: Callable[[], str]
) -> bytes:
    """Run `work` (source, call) once; what it answered. Raises ToolError in one sentence."""
    private = Path(tempfile.mkdtemp(dir=scratch.folder(), prefix="pasted-"))
    try:
        (private / "function.py").write_text(work[0], encoding="utf-8")
        (private / "call.json").write_text(json.dumps(work[1]), encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        program = (sys.executable, "-I", str(RUNNER), str(private.resolve()))
        job = sandbox.Job(program, folder, private, (RUNNER,))
        streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with box.start(job, stdout=subprocess.PIPE, **streams) as process:
            try:
                return listen(process, lambda: stop() or watched(process, job))
            finally:
                watch.end(process)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def watched(process: subprocess.Popen[bytes], job: sandbox.Job) -> str:
    return watch.too_much(process.pid, [job.folder, job.private or job.folder], LIMITS)


def listen(process: subprocess.Popen[bytes], stop: Callable[[], str]) -> bytes:
    """All it writes; ToolError when it is to stop or writes too much."""
    assert process.stdout is not None
    said = bytearray()
    while True:
        if reason := stop():
            raise ToolError(reason)
        if not select.select([process.stdout], [], [], 0.2)[0]:
            continue
        piece = os.read(process.stdout.fileno(), 1 << 20)
        said += piece
        if not piece:
            return bytes(said)
        if len(said) > MAX_ANSWER:
            raise ToolError(f"the function answered more than {MAX_ANSWER >> 20} MiB")


def answer(said: bytes) -> Any:
    """What the function returned. Raises ToolError for an error of it, or for no answer."""
    try:
        reply = json.loads(said)
        printed = str(reply.get("printed") or "")
        if "error" in reply:
            raise ToolError(results.one_line(str(reply["error"])))
        if "bytes" in reply:
            return base64.b64decode(str(reply["bytes"]))
        if reply.get("value") is None and printed:
            return ToolResult(results.cut(printed))
        return reply.get("value")
    except (ValueError, AttributeError, RecursionError) as error:
        limits = f"{LIMITS.memory >> 20} MiB of memory and {LIMITS.cpu} s of CPU"
        raise ToolError(f"the function ended without an answer; its limits are {limits}") from error

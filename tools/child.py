"""The process in which a tool of `tools/my/` runs; started by `tools/process.py`.

Reads one request as a line of JSON and answers with one line: `{"op": "list", "file": ...}` with
what the file offers, `{"op": "call", "file", "tool", "arguments", "context"}` with a result, and
anything that goes wrong with `{"error": sentence}`. What a tool prints or reads goes nowhere.
Then it waits to be killed, so that what the tool started can be found below it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from glm.errors import GlmError, ToolError
from tools import registry, results

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
MODULE = "my_tool"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What to write back for one request. Never raises."""
    path = Path(request["file"])
    try:
        tools = load(path)
    except BaseException as error:  # a file of a user may do anything while it is imported
        return {"error": sentence(error, path)}
    if request["op"] == "list":
        return {"tools": [describe(tool) for tool in tools]}
    found = next((tool for tool in tools if tool.name == request["tool"]), None)
    if found is None:
        return {"error": f"{path.name} has no tool '{request['tool']}' any more"}
    context = request["context"]
    files = {name: Path(place) for name, place in context.pop("files").items()}
    where = registry.Context(files=files, folder=Path(context.pop("folder")), **context)
    try:
        result = results.to_result(found.run(request["arguments"], where, registry.Cancel()))
    except BaseException as error:  # the border of a tool, which may try to exit, too
        result = results.failure(error)
    return {"result": results.encode(result)}


def load(path: Path) -> list[registry.Tool]:
    """The tools a file defines. Raises what the file raises, and ToolError when it has none."""
    for name in ("tool_registry", "tool_register"):  # as ChatGLM3's own files import it
        sys.modules[name] = registry
    sys.path.append(str(path.parent))
    module = _imported(path)
    tools = [value for value in vars(module).values() if isinstance(value, registry.Tool)]
    own = [tool for tool in tools if getattr(tool.function, "__module__", "") == MODULE]
    if not own:
        raise ToolError("it has no function with @tool")
    return own


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


def describe(tool: registry.Tool) -> dict[str, Any]:
    """A tool without its function."""
    return {
        "name": tool.spec.name,
        "description": tool.spec.description,
        "parameters": tool.spec.parameters,
        "network": tool.network,
        "policy": tool.policy,
        "timeout": tool.timeout,
    }


def sentence(error: BaseException, path: Path) -> str:
    """What is wrong with a file, and where in it."""
    line: int | None = None
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, told = error.lineno, f"SyntaxError: {results.redact(error.msg)}"
    else:
        told = results.failure(error).text
        frames = traceback.extract_tb(error.__traceback__)
        if not isinstance(error, GlmError):
            own = [frame.lineno for frame in frames if frame.filename == str(path)]
            line = own[-1] if own else None
    return f"{path.name}, line {line}: {told}" if line else f"{path.name}: {told}"


def keep_descendants() -> None:
    """What a tool starts and leaves behind stays below this process (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with(requests: BinaryIO) -> None:
    """Kill the process group when the program at the other end of the pipe has gone."""
    requests.read()
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def main() -> None:
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    keep_descendants()
    request = json.loads(requests.readline())
    watch = threading.Thread(target=end_with, args=[requests], daemon=True)
    watch.start()
    replies.write(json.dumps(answer(request)).encode("ascii") + b"\n")
    replies.flush()
    watch.join()


if __name__ == "__main__":
    main()

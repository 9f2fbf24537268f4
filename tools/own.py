"""The operator's own tools: each `*.py` in a folder (`tools/my/`), read and run in child processes.

    own = OwnTools(Path("tools/my"), registry)
    problems = own.refresh()      # file name -> sentence; reads what is new or changed

A file is never imported here. Files whose names begin with `_` are left out. Two calls share no
memory: each runs in a fresh process (`tools/process.py`), which is no sandbox.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from glm.cancel import Cancel
from glm.errors import BadRequest, ToolError
from glm.messages import Policy, ToolResult, ToolSpec
from tools import process, results
from tools.registry import TIMEOUT, Context, Registry, Run, Tool
from tools.time_limit import limited

READ_SECONDS = 20.0  # what a file may take to be imported
Print = tuple[int, int, int]


@dataclass(frozen=True)
class _File:
    """What was found in a file as it was then."""

    print: Print
    names: tuple[str, ...] = ()
    problem: str = ""


class OwnTools:
    """Keeps the tools of a folder in a registry. Thread-safe."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self._folder, self._registry = folder, registry
        self._lock = threading.Lock()
        self._files: dict[Path, _File] = {}

    def refresh(self) -> dict[str, str]:
        """Read the files that are new or changed, forget those that are gone.

        Returns what is wrong, one sentence for each file; its tools are not offered.
        """
        with self._lock:
            prints = self._prints()
            for path in [known for known in self._files if known not in prints]:
                self._registry.remove(*self._files.pop(path).names)
            for path, now in prints.items():
                before = self._files.get(path)
                if before is None or before.print != now:
                    self._registry.remove(*(before.names if before else ()))
                    self._files[path] = self._read(path, now)
            return {path.name: file.problem for path, file in self._files.items() if file.problem}

    def _prints(self) -> dict[Path, Print]:
        found = {}
        for path in sorted(self._folder.glob("[!_.]*.py")):
            try:
                stat = path.stat()
            except OSError:  # it went away, or is a link to nothing
                continue
            found[path.resolve()] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found

    def _read(self, path: Path, now: Print) -> _File:
        try:
            with limited(READ_SECONDS) as stop:
                try:
                    reply = process.ask({"op": "list", "file": str(path)}, stop)
                except ToolError:
                    if not stop.late:
                        raise
                    late = f"{path.name}: it takes longer than {READ_SECONDS:.0f} s to import"
                    return _File(now, problem=late)
            tools = [tool_of(path, found) for found in reply["tools"]]
            self._registry.add(*tools)
        except BadRequest as error:
            return _File(now, problem=f"{path.name}: {error}")
        except ToolError as error:
            return _File(now, problem=str(error))
        return _File(now, tuple(tool.name for tool in tools))


def tool_of(path: Path, found: dict[str, Any]) -> Tool:
    """A tool whose calls run in a child that imports `path`. Raises BadRequest."""
    try:
        spec = ToolSpec(found["name"], str(found["description"]), found["parameters"])
        policy: Policy = found["policy"] if found["policy"] in get_args(Policy) else "ask"
        timeout = float(found.get("timeout", TIMEOUT))
        network = bool(found["network"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest("its tools could not be read") from error
    run = runner(path, spec.name)
    return Tool(spec, run, policy, network=network, origin="my", timeout=timeout)


def runner(path: Path, name: str) -> Run:
    """Runs the tool `name` of the file in a fresh child."""

    def run(values: dict[str, Any], context: Context, cancel: Cancel) -> ToolResult:
        folder = context.folder
        folder.mkdir(parents=True, exist_ok=True)
        where = {
            "owner": context.owner,
            "conversation": context.conversation,
            "folder": str(folder.resolve()),
            "files": {key: str(place.resolve()) for key, place in context.files.items()},
        }
        request = {"op": "call", "file": str(path), "tool": name, "arguments": values}
        reply = process.ask({**request, "context": where}, cancel, folder)
        try:
            return results.decode(reply.get("result"))
        except ValueError as error:
            raise ToolError(process.NO_RESULT) from error

    return run

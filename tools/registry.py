"""Tools, and the ones that are enabled in a conversation.

    @tool
    def calculator(expression: str) -> str:
        \"\"\"Evaluate an arithmetic expression such as 2 * (3 + 4).\"\"\"

    registry = Registry()
    registry.add(calculator)
    toolbox = registry.toolbox(["calculator"], Context(owner, conversation, folder))
    result = toolbox.call(ToolCall("calculator", {"expression": "6*7"}), cancel)

A tool that is not enabled is never run, whatever the model writes. A tool runs in the thread that
calls the toolbox; one that may not end, or may do harm, belongs in a child process
(`tools/process.py`) or in the sandbox.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, Literal, overload

from glm.cancel import Cancel
from glm.errors import BadRequest, NotFound, ToolError
from glm.messages import Policy, ToolCall, ToolResult, ToolSpec
from tools import arguments, results, schema, signature
from tools.time_limit import limited

__all__ = [
    "Cancel", "Context", "Origin", "Registry", "Tool", "Toolbox", "register_tool", "tool",
]  # fmt: skip

Origin = Literal["builtin", "my", "pasted", "schema", "mcp"]
TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Context:
    """Where a call happens: whose it is, the conversation's own folder, its uploads by name."""

    owner: str
    conversation: str
    folder: Path
    files: Mapping[str, Path] = field(default_factory=dict)


Run = Callable[[dict[str, Any], Context, Cancel], Any]


@dataclass(frozen=True)
class Tool:
    """A tool: what the model is told, what runs, and what may happen without asking.

    `run(arguments, context, cancel)` gets checked arguments and may return anything
    (`tools/results.py`) or raise `ToolError` with a sentence for the model. `policy` is a default
    that a conversation may change: "ask" where the tool uses the network, else "allow".
    `manual`: nothing runs, a person writes the answer. `function` is what `@tool` wrapped.
    Raises BadRequest for a name or a schema that cannot be used, unless it is a function's.
    """

    spec: ToolSpec
    run: Run
    policy: Policy | Literal[""] = ""
    network: bool = False
    origin: Origin = "builtin"
    timeout: float = TIMEOUT
    manual: bool = False
    function: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if self.function is None:  # the schema of a function is our own work
            schema.check_spec(self.spec)
        if self.policy == "":
            default: Policy = "ask" if self.network or self.manual else "allow"
            object.__setattr__(self, "policy", default)

    @property
    def name(self) -> str:
        return self.spec.name

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Call the wrapped function as if there were no tool around it."""
        if self.function is None:
            raise TypeError(f"the tool {self.name} is no function")
        return self.function(*values, **named)


# ---- functions as tools --------------------------------------------------------------------


@overload
def tool(function: Callable[..., Any]) -> Tool: ...
@overload
def tool(
    *, spec: ToolSpec | None = None, network: bool = False, timeout: float = TIMEOUT,
    policy: Policy | Literal[""] = "",
) -> Callable[[Callable[..., Any]], Tool]: ...  # fmt: skip


def tool(
    function: Callable[..., Any] | None = None,
    *,
    spec: ToolSpec | None = None,
    network: bool = False,
    timeout: float = TIMEOUT,
    policy: Policy | Literal[""] = "",
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """A tool of a function: `@tool`, or `@tool(spec=SPEC, network=True, timeout=10)`.

    The schema comes from the signature and the docstring, or is `spec`, which must agree with the
    signature. Parameters annotated `Context` or `Cancel` are not the model's. A coroutine function
    is run to its end. Raises TypeError, naming the parameter, for a function without types.
    """

    def wrap(function: Callable[..., Any]) -> Tool:
        read = signature.read(function, hidden=(Context, Cancel))
        if spec is not None and (why := signature.disagreement(read, spec)):
            raise TypeError(f"{function.__name__}() does not fit its specification: {why}")
        return Tool(
            spec or read.spec, _runner(function, read), policy, network=network, timeout=timeout,
            function=function,
        )  # fmt: skip

    return wrap if function is None else wrap(function)


def register_tool(function: Callable[..., Any]) -> Tool:
    """ChatGLM3's decorator: every parameter is `Annotated[type, "description", required]`.

    Raises TypeError in the words of composite_demo/tool_registry.py.
    """
    signature.check_official(function)
    return tool(function)


def _runner(function: Callable[..., Any], read: signature.Signature) -> Run:
    def run(values: dict[str, Any], context: Context, cancel: Cancel) -> Any:
        given = {key: context if kind is Context else cancel for key, kind in read.given.items()}
        value = function(**read.arguments(values), **given)
        return _awaited(value) if inspect.iscoroutine(value) else value

    return run


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # here: a child process that needs it not starts sooner

    return asyncio.run(coroutine)


# ---- what exists, and what a conversation may use -------------------------------------------


class Registry:
    """The tools of the program, by name, in the order they were added. Thread-safe."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._lock = threading.Lock()
        self._tools: dict[str, Tool] = {}
        self.add(*tools)

    def add(self, *tools: Tool) -> None:
        """All of these, or none: BadRequest where a name is taken."""
        with self._lock:
            self._tools = _named([*self._tools.values(), *tools])

    def remove(self, *names: str) -> None:
        """Forget these; names that are not here are ignored."""
        with self._lock:
            self._tools = {name: it for name, it in self._tools.items() if name not in names}

    def get(self, name: str) -> Tool:
        """The tool of this name, exactly as it is written. Raises NotFound."""
        found = self._tools.get(name)
        if found is None:
            raise NotFound(_unknown(name, self._tools))
        return found

    def tools(self) -> tuple[Tool, ...]:
        return tuple(self._tools.values())

    def toolbox(
        self,
        names: Iterable[str],
        context: Context,
        policies: Mapping[str, Policy] | None = None,
        own: Iterable[Tool] = (),
    ) -> Toolbox:
        """The tools of one conversation: these names, and a visitor's `own`.

        `own` are the visitor's pasted functions and schemas; they count as enabled. Names that
        do not exist (any more) are left out. Raises BadRequest where an own tool has the name of
        another.
        """
        tools = self._tools
        enabled = [tools[name] for name in dict.fromkeys(names) if name in tools]
        return Toolbox(_named([*enabled, *own]), context, dict(policies or {}))


class Toolbox:
    """One conversation's enabled tools, as the loop uses them."""

    def __init__(
        self, tools: Mapping[str, Tool], context: Context, policies: Mapping[str, Policy]
    ) -> None:
        self._tools, self._context, self._policies = tools, context, policies

    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told of."""
        return tuple(tool.spec for tool in self._tools.values())

    def policy(self, name: str) -> Policy:
        """What may happen with a call of this name; "deny" for one that is not enabled."""
        found = self._tools.get(name)
        if found is None or not found.policy:
            return "deny"
        chosen = self._policies.get(name, found.policy)
        return "ask" if found.manual and chosen == "allow" else chosen

    def limit(self, name: str) -> float:
        """The tool's own limit in seconds; 0 for one that is not enabled."""
        found = self._tools.get(name)
        return found.timeout if found else 0.0

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        """Check the arguments and run the tool. Never raises: errors are results."""
        started = monotonic()
        try:
            result = self._run(call, cancel)
        except BaseException as error:  # the border of a tool, which may try to exit, too
            result = results.failure(error)
        return replace(result, seconds=monotonic() - started)

    def _run(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        found = self._tools.get(call.name)
        if found is None:
            raise ToolError(_unknown(call.name, self._tools))
        if self.policy(call.name) == "deny":
            raise ToolError(f"the tool '{call.name}' may not be used in this conversation")
        values = arguments.check(found.spec, call.arguments)
        with limited(found.timeout, cancel) as stop:
            if stop.is_set():
                return ToolResult(f"{call.name} was stopped before it ran", error=True)
            try:
                result = results.to_result(found.run(values, self._context, stop))
            except Exception:
                if not stop.is_set():  # what a tool says of its own end is of no interest
                    raise
        if stop.late:
            sentence = f"{call.name} was stopped: it ran longer than {found.timeout:.3g} s"
            return ToolResult(sentence, error=True)
        if stop.is_set():
            return ToolResult(f"{call.name} was stopped", error=True)
        return result


def _named(tools: Iterable[Tool]) -> dict[str, Tool]:
    out: dict[str, Tool] = {}
    for item in tools:
        if item.name in out:
            raise BadRequest(f"a tool named '{item.name}' exists already; choose another name")
        out[item.name] = item
    return out


def _unknown(name: str, available: Iterable[str]) -> str:
    names = ", ".join(available) or "none"
    return f"no tool '{results.one_line(name, 60)}'; available: {names}"

"""The registry as an MCP server: what may run without asking, for other programs to call.

    service = Service(registry, lambda owner: Context(owner, "mcp", folder / owner))
    async with service.run():        # in the lifespan of the application that mounts it
        ...                          # and `service` itself is the ASGI application of /mcp

Only tools whose own policy is "allow" and that the one who asks may use are listed and run;
arguments are checked and results are cut as everywhere. It holds no session. Host, origin and
login are checked by whoever mounts it.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp import stdio_server, types
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from glm.messages import ToolCall, ToolResult
from tools import results
from tools.registry import Cancel, Context, Registry, Tool

MAX_BODY = 1_000_000  # bytes of one request
AT_ONCE = 4  # calls that run at the same time
WAITING = 32  # calls that wait for these; more are refused
MARGIN_SECONDS = 5.0  # for a tool to end by itself when its own limit has come
ANYBODY = "mcp"  # whose a call is when the one who mounts this does not say

Asgi = Callable[[Any, Any, Any], Any]


class Service:
    """An ASGI application. `context` makes the place of a call from the id of its user.

    The user is `scope["user"]`, None where there is none; `may` tells which tools are theirs.
    """

    def __init__(
        self,
        registry: Registry,
        context: Callable[[str], Context],
        may: Callable[[Any, Tool], bool] = lambda user, tool: True,
    ) -> None:
        self._registry, self._context, self._may = registry, context, may
        self._app: Asgi | None = None
        self._slots: asyncio.Semaphore
        self._inside = 0  # calls that run or wait
        self._server: Server[Any] = Server(
            "glm-workbench", on_list_tools=self._list, on_call_tool=self._call
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            raise RuntimeError("enter Service.run() in the lifespan of the application")
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve http while this is open. It may be opened again after it was closed."""
        manager = StreamableHTTPSessionManager(
            self._server,
            json_response=True,
            stateless=True,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            max_request_body_size=MAX_BODY,
        )
        self._slots = asyncio.Semaphore(AT_ONCE)
        async with manager.run():
            self._app = manager.asgi_app
            try:
                yield
            finally:
                self._app = None

    async def stdio(self) -> None:
        """Serve the program that started this one, until it closes our input."""
        self._slots = asyncio.Semaphore(AT_ONCE)
        async with stdio_server() as (read, write):
            await self._server.run(read, write, self._server.create_initialization_options())

    def _tools(self, user: Any) -> tuple[Tool, ...]:
        tools = self._registry.tools()
        open_ = [tool for tool in tools if tool.policy == "allow" and not tool.manual]
        return tuple(tool for tool in open_ if self._may(user, tool))

    async def _list(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        tools = self._tools(_user(context.request))
        return types.ListToolsResult(tools=[_described(tool) for tool in tools])

    async def _call(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        if self._inside >= AT_ONCE + WAITING:
            return _answer(ToolResult("too many calls wait already; try again later", error=True))
        user = _user(context.request)
        tools = {tool.name: tool for tool in self._tools(user)}
        found = tools.get(params.name)
        call = ToolCall(params.name, params.arguments or {})
        owner = str(getattr(user, "id", "") or ANYBODY)

        def work(stop: Cancel) -> ToolResult:
            return self._registry.toolbox(tools, self._context(owner)).call(call, stop)

        self._inside += 1
        try:
            async with self._slots:
                return _answer(await _in_thread(work, call, found.timeout if found else 0.0))
        finally:
            self._inside -= 1


async def _in_thread(
    work: Callable[[Cancel], ToolResult], call: ToolCall, seconds: float
) -> ToolResult:
    """The result; when nobody waits for it any more, the tool is told to end.

    A thread of its own: a tool that does not end holds none of the others' threads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[ToolResult] = loop.create_future()
    stop = Cancel()

    def settle(result: ToolResult) -> None:
        if not done.done():
            done.set_result(result)

    def run() -> None:
        try:
            result = work(stop)
        except Exception as error:  # the border of a request: its place could not be made
            result = results.failure(error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, name="glm-mcp-call", daemon=True).start()
    try:
        return await asyncio.wait_for(done, seconds + MARGIN_SECONDS)
    except TimeoutError:
        return ToolResult(f"{call.name} was stopped: it did not end in time", error=True)
    finally:
        stop.set()


def _described(tool: Tool) -> types.Tool:
    schema: Mapping[str, Any] = tool.spec.parameters or {"type": "object"}
    return types.Tool(
        name=tool.name,
        description=tool.spec.description,
        input_schema={"type": "object", **schema},
    )


def _answer(result: ToolResult) -> types.CallToolResult:
    content: list[types.ContentBlock] = [types.TextContent(text=result.text)]
    content += [
        types.ImageContent(data=base64.b64encode(image.data).decode("ascii"), mime_type=image.mime)
        for image in result.images
    ]
    return types.CallToolResult(content=content, is_error=result.error)


def _user(request: Any) -> Any:
    """The user whom the one who mounts this put into the scope."""
    scope = getattr(request, "scope", None)
    return scope.get("user") if isinstance(scope, Mapping) else None

"""interpreter: Python code, run in the conversation's own kernel in the sandbox.

The tool of ChatGLM3's `interpreter` turns: the argument is `code`, the observation a block named
`result`, with `[Image]` where a figure is (THUDM/ChatGLM3 PROMPT.md; the mark of what was cut is
that of composite_demo/demo_ci.py). Files it writes stay in the folder: `workspace.files`.
"""

from __future__ import annotations

from typing import Any

from glm.cancel import Cancel
from glm.messages import ToolResult, ToolSpec
from tools import kernel, results
from tools.kernel_output import Output
from tools.kernel_pool import KernelPool
from tools.registry import Context, Tool

SECONDS = 30.0  # of one piece of code
MAX_CODE = 50_000
MARK = " [TRUNCATED]"
LOST = "the interpreter was started anew, its variables are gone"
SPEC = ToolSpec(
    "interpreter",
    "Run Python code in a sandbox without a network and see what it shows; variables stay",
    {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "The Python code"}},
        "required": ["code"],
    },
)
# What ChatGLM3 was trained to read before it writes code (composite_demo/demo_ci.py).
SYSTEM = (
    "你是一位智能AI助手，你叫ChatGLM，你连接着一台电脑，但请注意不能联网。"
    "在使用Python解决任务时，你可以运行代码并得到结果，如果运行结果有错误，你需要尽可能对代码进行改进。"
    "你可以处理用户上传到电脑上的文件，文件默认存储路径是/mnt/data/。"
)


def interpreter(pool: KernelPool, seconds: float = SECONDS) -> Tool:
    """The tool of a pool. Without isolation, where the operator allows that, it asks each time."""

    def run(arguments: dict[str, Any], context: Context, cancel: Cancel) -> ToolResult:
        code = str(arguments["code"])
        if len(code) > MAX_CODE:
            return ToolResult(f"the code is longer than {MAX_CODE} characters", error=True)
        return observation(pool.run(context, code, seconds, cancel.is_set))

    # The time to start a kernel and to end one comes on top.
    timeout = seconds + kernel.START + 4 * kernel.GRACE
    return Tool(SPEC, run, "allow" if pool.box.isolated else "ask", timeout=timeout)


def observation(output: Output) -> ToolResult:
    """What the model reads of it, and the pictures and the table for a person."""
    limit = results.MAX_TEXT - 200 - len(MARK)
    shown = results.clean(output.text).strip("\n")
    if output.cut or len(shown) > limit:
        shown = shown[:limit] + MARK
    error = results.clean(output.error)[:1000]
    if note := "; ".join(filter(None, (error, LOST if output.lost else ""))):
        shown = f"{shown[: limit - len(note)]}\n{note}".lstrip("\n")
    return ToolResult(
        f"```result\n{shown}\n```",
        error=bool(error),
        images=tuple(output.images),
        table=output.table,
    )

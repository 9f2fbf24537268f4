"""What a conversation's policies may change: all for the operator, only towards less for others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glm.cancel import Cancel
from glm.identity import User
from glm.messages import ToolCall, ToolSpec
from tools.registry import Tool
from tools.workshop import Workshop

ANN, BOB = User("ann", operator=True), User("bob")
SECRET = '''
from tools.registry import tool

@tool(policy="deny")
def secret() -> str:
    """Tell the secret."""
    return "canary"
'''


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "secret.py").write_text(SECRET)
    made = Workshop(tmp_path / "data", my=tmp_path / "my", isolation="off")
    yield made
    made.close()


def test_a_visitor_does_not_run_what_the_operator_denied(shop):
    call = ToolCall("secret", {})
    box = shop.toolbox(BOB, "c", ["secret"], {"secret": "allow"})
    assert box.policy("secret") == "deny"
    for result in (box.call(call, Cancel()), shop.run(BOB, "c", call, Cancel())):
        assert result.error and "canary" not in result.text
    assert (
        shop.toolbox(ANN, "c", ["secret"], {"secret": "allow"}).call(call, Cancel()).text
        == "canary"
    )


@pytest.mark.parametrize(
    ("own", "chosen", "holds"),
    [
        ("ask", "allow", "ask"),
        ("ask", "deny", "deny"),
        ("allow", "ask", "ask"),
        ("allow", "allow", "allow"),
        ("allow", "no such", "allow"),
        ("deny", "ask", "deny"),
    ],
)
def test_a_visitor_can_only_tighten_a_policy(shop, own, chosen, holds):
    shop.cards(ANN)
    made = Tool(ToolSpec("there"), lambda *_: "", policy=own, origin="mcp")
    object.__setattr__(made, "visitors", True)  # as its entry in mcp.json says
    shop._parts.registry.add(made)
    assert shop.toolbox(BOB, "c", ["there"], {"there": chosen}).policy("there") == holds
    assert shop.toolbox(BOB, "c", ["there"], {}).policy("there") == own

"""Prompt X-ray: the exact tokens of a turn, sent and produced, coloured by role, as safe HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from demo.text import Say
from glm.dialects.base import RoleToken
from glm.store import TurnRecord

SHOWN = 6000  # tokens drawn of one side; the middle of a longer one is folded away
_BREAKS = ("\n", "<0x0A>")  # the byte token of a line break
ROLES = ("system", "user", "assistant", "tool")


def panel(
    turn: TurnRecord, sent: Sequence[RoleToken], produced: Sequence[RoleToken], say: Say
) -> str:
    """The inside of the dialog."""
    legend = "".join(
        f'<span class="key {role}">{escape(say(f"role.{role}"))}</span>' for role in ROLES
    )
    legend += f'<span class="key special">{escape(say("role.special"))}</span>'
    return (
        f'<div class="xray-facts">{escape(_summary(turn, say))}</div>'
        f'<div class="xray-legend">{legend}'
        f'<label class="xray-ids"><input type="checkbox" checked> {escape(say("xray.ids"))}</label>'
        "</div>"
        f"{_side(say('xray.sent', count=len(sent)), sent, say)}"
        f"{_side(say('xray.produced', count=len(produced)), produced, say)}"
    )


def _summary(turn: TurnRecord, say: Say) -> str:
    parts = [
        say("xray.usage", prompt=turn.usage.prompt, cached=turn.usage.cached, new=turn.usage.new)
    ]
    parts.insert(0, say("xray.model", model=turn.model))
    parts.append(say("xray.seconds", seconds=f"{turn.seconds:.2f}"))
    if turn.sampling:
        chosen = turn.sampling
        parts.append(f"temperature {chosen.temperature:g}")
        parts.append(f"top-p {chosen.top_p:g}")
        if chosen.seed is not None:
            parts.append(f"seed {chosen.seed}")
    parts.append(say(f"finish.{turn.finish}"))
    return " · ".join(parts)


def _side(title: str, tokens: Sequence[RoleToken], say: Say) -> str:
    body = "".join(map(_token, tokens[:SHOWN]))
    if len(tokens) > SHOWN:
        half = SHOWN // 2
        gap = escape(say("xray.hidden", count=len(tokens) - SHOWN))
        body = (
            "".join(map(_token, tokens[:half]))
            + f'<span class="gap">{gap}</span>'
            + "".join(map(_token, tokens[-half:]))
        )
    return f'<h3>{escape(title)}</h3><div class="tokens" dir="ltr">{body}</div>'


def _token(token: RoleToken) -> str:
    role = "special" if token.special else (token.role or "assistant")
    text = "⏎" if token.text in _BREAKS else escape(token.text).replace(" ", "·") or "∅"
    return f'<span class="tok {role}">{text}<i>{token.id}</i></span>'

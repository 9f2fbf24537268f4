"""What the model reads when no tool answered: each is one sentence that says what is wrong.

The sentences are English like the tools' own; nothing in them comes from an exception's text.
"""

from __future__ import annotations

from collections.abc import Sequence

from glm.messages import Malformed, ToolResult

PERSON = "person"  # `ToolResult.recorded` of what a person wrote or decided
LONGEST = 200  # characters of what a model wrote that are repeated to it

FAILED = "Error: "  # stands before what went wrong, so that a model can tell it from an answer

STOPPED = ToolResult("the call was stopped before it returned", error=True)
SKIPPED = ToolResult(
    "the user did not let this call run; nothing was done", error=True, recorded=PERSON
)


def observation(result: ToolResult) -> str:
    """The text of the turn that tells the model what came back."""
    if not result.error or result.text.startswith(FAILED):
        return result.text
    return FAILED + result.text


def written(text: str) -> ToolResult:
    """A person's own words in place of a tool's."""
    return ToolResult(text, recorded=PERSON)


def unreadable(malformed: Malformed) -> ToolResult:
    """For text that should have been a call and is not."""
    which = f"the call of {_short(malformed.name)}" if malformed.name else "the call"
    return _error(f"{which} could not be read: {_short(malformed.reason)}; nothing was run")


def refused(name: str, enabled: Sequence[str]) -> ToolResult:
    """For a call of a tool that may not run; `enabled` are the names that may."""
    meant = [one for one in enabled if one.casefold() == name.casefold()]
    hint = f"; names are exact: write {meant[0]}" if meant else ""
    names = ", ".join(sorted(enabled)) or "none"
    return _error(f"there is no tool {_short(name)} here; available: {names}{hint}")


def not_allowed(name: str) -> ToolResult:
    """For a tool that is known and denied."""
    return _error(f"the tool {_short(name)} is not allowed in this conversation")


def _error(text: str) -> ToolResult:
    return ToolResult(text, error=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"

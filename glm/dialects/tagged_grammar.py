"""What an answer with tagged calls may be (tagged.py), as a grammar over its tokens.

Text and thoughts are free; what stands in `<tool_call>` is one of the tools and follows its
schema, in the form of GLM-4.5 or as JSON with a name and arguments. Where a call may be bare JSON
(Llama), an answer that is a JSON object is such a call, or text that cannot be read as one.
Nothing that these rules allow is malformed. JSON in another order, or with the call inside a
"function", is read but never written under a grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from glm.dialects.blocks import THINK, THOUGHT
from glm.dialects.free_text import ANY, FreeText
from glm.dialects.json_arguments import JsonArguments
from glm.dialects.literals import GAP, JSON
from glm.dialects.offered import Heads
from glm.dialects.regular import escaped
from glm.dialects.tag_arguments import TaggedArguments
from glm.dialects.tagged import CALL, CALLED, MARKS, PYTHON_TAG
from glm.dialects.value_grammar import Rules
from glm.dialects.vocabulary import Vocabulary
from glm.messages import ToolSpec

SPACE = r"[\s\x1C-\x1F]"  # all that Python calls white space
BRACED = rf"{SPACE}*\{{{ANY}*"
# What begins as a bare call and may hold its arguments.
MAY_CALL = (
    rf"{SPACE}*\{{{SPACE}*\"((arguments|parameters)\"{ANY}*"
    rf"|(name|type|function)\"{ANY}*(\"arguments\"|\"parameters\"|\\u){ANY}*)"
)
FEW = r"[ \n]{0,4}"
NAMED = rf"\{{{GAP}\"name\": ?\""
BARE_NAMED = rf"\{{{GAP}(\"type\": ?\"function\",{GAP})?\"name\": ?\""
ARGUMENTS = rf"\",{GAP}\"arguments\": ?"
BARE_ARGUMENTS = rf"\",{GAP}\"(arguments|parameters)\": ?"
CLOSED = rf"/{GAP}\}}/"


@dataclass(frozen=True, slots=True)
class TagGrammar:
    """`ends`, `thinking` and `bare` as in `TagForm`; `tagged`: calls have the form of GLM-4.5."""

    ends: tuple[int, ...]
    thinking: bool = False
    bare: bool = False
    tagged: bool = False

    def answer(self, tokenizer: Vocabulary, tools: Sequence[ToolSpec]) -> str | None:
        """The rules, `start` first; None where answers have no end, or where the vocabulary
        lacks the marks of GLM-4.5, as that of no such model does.

        Raises BadRequest, naming the tool at fault.
        """
        ends = [end for end in self.ends if end >= 0]
        if not ends or (self.tagged and not all(mark in tokenizer.special for mark in MARKS)):
            return None
        return _Writer(tokenizer, tools, self).rules([f"<[{end}]>" for end in ends])


class _Writer:
    def __init__(self, tokenizer: Vocabulary, tools: Sequence[ToolSpec], form: TagGrammar) -> None:
        self._tokenizer, self._tools, self._form = tokenizer, tools, form
        self._rules = Rules()
        self._heads = Heads(tools, self._rules)
        marks = (THINK, CALL, PYTHON_TAG) if form.bare else (THINK, CALL)
        self._texts = FreeText(tokenizer, self._rules, marks, BRACED if form.bare else "")
        self._braced = FreeText(tokenizer, self._rules, marks, MAY_CALL)
        self._thoughts = FreeText(tokenizer, self._rules, (THOUGHT,))

    def rules(self, ends: Sequence[str]) -> str:
        """All of them, `start` first."""
        thinking, think = self._thoughts.text(), self._texts.upto(THINK)
        call = f"{self._texts.upto(CALL)} {self._rules.either([*map(self._call, self._tools)])}"
        blank = self._texts.upto(THINK, SPACE)
        last = [self._texts.text(), f"{think} {thinking}?"]
        answers = ["answer"]
        if self._form.bare:
            last.append(self._braced.text(BRACED))
            first = "" if self._form.thinking else f"({blank} thought)? "
            answers.append(f"{first}{self._bare()} end")
        # Some open the thought again that the prompt has opened.
        starts = [f"({blank})? thought ({' | '.join(answers)})", f"({blank})? {thinking}? end"]
        return "\n".join(
            [
                f"start: {' | '.join(starts if self._form.thinking else answers)}",
                f"answer: ({think} thought | {call})* ({' | '.join(last)})? end",
                f"thought: {self._thoughts.upto(THOUGHT)}",
                f"end: {' | '.join(ends)}",
                self._rules.text(),
            ]
        )

    def _call(self, tool: ToolSpec) -> str:
        """What follows `<tool_call>`, to its end."""
        end = self._texts.mark(CALLED)
        if self._form.tagged:
            body = TaggedArguments(self._rules, self._tokenizer, self._tools)(tool)
            head = self._heads.head(tool, "", "\\n?")
            return self._rules.add(f"{head} {body} {end}")
        never = () if CALLED in self._tokenizer.special else (CALLED,)
        body = JsonArguments(self._rules, replace(JSON, never=never))(tool)
        head = self._heads.head(tool, FEW + NAMED, ARGUMENTS)
        return self._rules.add(f"{head} {body} /{GAP}\\}}{FEW}/ {end}")

    # ---- calls without tags --------------------------------------------------------------

    def _bare(self) -> str:
        """One call after the other, and nothing else."""
        tag = ""
        if PYTHON_TAG in self._tokenizer.special:
            tag = f"{self._texts.upto(PYTHON_TAG, SPACE)}? "
            before = f"{SPACE}*"
        else:
            before = f"{SPACE}*({escaped(PYTHON_TAG)}{SPACE}*)?"
        more = self._bare_calls(r"[ \n;]{0,4}")
        return self._rules.add(f"{tag}{self._bare_calls(before)} {more}*")

    def _bare_calls(self, before: str) -> str:
        """One of the calls."""
        body = JsonArguments(self._rules)
        found = []
        for tool in self._tools:
            head = self._heads.head(tool, before + BARE_NAMED, BARE_ARGUMENTS)
            found.append(self._rules.add(f"{head} {body(tool)} {CLOSED}"))
        return self._rules.either(found)

"""What an answer made of blocks may be (blocks.py), as a grammar over its tokens.

An answer is text, or text (a thought) and calls, or calls; a block of text starts with an empty
line and is free. A call is a tool's name, a newline and its arguments; after the last call the
turn goes to the tool. A model that thinks does so first, freely. Nothing that these rules allow
is malformed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glm.dialects.blocks import THOUGHT
from glm.dialects.literals import JSON, without
from glm.dialects.offered import Heads, forms
from glm.dialects.regular import escaped
from glm.dialects.value_grammar import Rules, Values
from glm.messages import ToolSpec
from glm.vocabulary import Vocabulary

NEWLINE = r"\n"
Body = Callable[[ToolSpec], str]


class JsonBodies:
    """The arguments as a JSON object, as GLM-4 writes them."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._values = rules, Values(rules, JSON)

    def __call__(self, tool: ToolSpec) -> str:
        """The rule for this tool. Raises BadRequest, naming the tool."""
        found = forms(tool)
        anything = {"type": "object", "properties": {}, "additionalProperties": {}}
        return self._rules.either([*map(self._values.value, found or [anything])])


@dataclass(frozen=True, slots=True)
class BlockGrammar:
    """What differs between the families: the arguments of a call; the rest as in `BlockForm`."""

    bodies: Callable[[Rules], Body] = JsonBodies
    dummy_space: bool = False
    thinking: bool = False

    def answer(self, tokenizer: Vocabulary, tools: Sequence[ToolSpec]) -> str:
        """The rules, `start` first. Raises BadRequest, naming the tool at fault."""
        rules, space = Rules(), " ?" if self.dummy_space else ""
        heads, body = Heads(tools, rules), self.bodies(rules)
        calls = [f"{heads.head(tool, space, NEWLINE)} {body(tool)}" for tool in tools]
        assistant = f"<[{tokenizer.id('<|assistant|>')}]>"
        over = f"(<[{tokenizer.eos}]> | <[{tokenizer.id('<|user|>')}]>)"
        lines = [
            f"answer: text {over} | (text {assistant})? calls",
            f"calls: call ({assistant} call)* <[{tokenizer.id('<|observation|>')}]>",
            f"text: TEXT ({assistant} TEXT)*",
            f"TEXT: /{space}\\n(?s:.*)/",
            f"call: {' | '.join(dict.fromkeys(calls))}",
        ]
        start = self._thinking(tokenizer, over) if self.thinking else ["start: answer"]
        return "\n".join([*start, *lines, rules.text()])

    def _thinking(self, tokenizer: Vocabulary, over: str) -> list[str]:
        """A thought and an answer, or a thought that never ends."""
        if THOUGHT in tokenizer.special:
            end = f"THINKING? <[{tokenizer.id(THOUGHT)}]>"
            return [
                f"start: {end} answer | THINKING? {over}",
                "THINKING: /(?s:.+)/",
            ]
        mark = escaped(THOUGHT)
        return [
            f"start: THOUGHT answer | THINKING? {over}",
            f"THINKING: /(?s:.+)/{without(THOUGHT)}",
            f"THOUGHT: /(?s:.*){mark}/ & ~/(?s:.*){mark}(?s:.+)/",
        ]

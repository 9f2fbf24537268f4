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
from glm.dialects.free_text import FreeText
from glm.dialects.json_arguments import JsonArguments
from glm.dialects.offered import Heads
from glm.dialects.value_grammar import Rules
from glm.dialects.vocabulary import Vocabulary
from glm.messages import ToolSpec

NEWLINE = r"\n"
Arguments = Callable[[ToolSpec], str]  # the rule of a tool's arguments


@dataclass(frozen=True, slots=True)
class BlockGrammar:
    """What differs between the families: the arguments of a call; the rest as in `BlockForm`."""

    arguments: Callable[[Rules], Arguments] = JsonArguments
    dummy_space: bool = False
    thinking: bool = False

    def answer(self, tokenizer: Vocabulary, tools: Sequence[ToolSpec]) -> str:
        """The rules, `start` first. Raises BadRequest, naming the tool at fault."""
        rules, space = Rules(), " ?" if self.dummy_space else ""
        heads, arguments = Heads(tools, rules), self.arguments(rules)
        calls = [f"{heads.head(tool, space, NEWLINE)} {arguments(tool)}" for tool in tools]
        assistant = f"<[{tokenizer.id('<|assistant|>')}]>"
        over = f"(<[{tokenizer.eos}]> | <[{tokenizer.id('<|user|>')}]>)"
        start = "answer"
        if self.thinking:  # a thought that never ends is no error
            thoughts = FreeText(tokenizer, rules, (THOUGHT,))
            start = f"{thoughts.upto(THOUGHT)} answer | {thoughts.text()}? {over}"
        return "\n".join(
            [
                f"start: {start}",
                f"answer: text {over} | (text {assistant})? calls",
                f"calls: call ({assistant} call)* <[{tokenizer.id('<|observation|>')}]>",
                f"text: TEXT ({assistant} TEXT)*",
                f"TEXT: /{space}\\n(?s:.*)/",
                f"call: {' | '.join(dict.fromkeys(calls))}",
                rules.text(),
            ]
        )

"""ChatGLM-6B's (v1) prompt language: a question as it is, or numbered rounds of 问 and 答.

encode(query), after a history encode("[Round 0]\\n问：q\\n答：a\\n[Round 1]\\n问：q\\n答："), and
`[gMASK] <sop>`; the answer ends with `<eop>`. The text is encoded as one, so produced ids are not
sent again. A system text, which the family does not know, stands in front. An answer is shown as
by the official process_response: punctuation next to a Chinese character becomes full-width,
which the vocabulary does not have. Source: THUDM/chatglm-6b, modeling_chatglm.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from glm.dialects.base import Piece, RoleToken, taught
from glm.dialects.chatglm2 import PlainParser
from glm.dialects.rewriter import Rewriter, beginnings
from glm.dialects.vocabulary import Vocabulary
from glm.errors import BadRequest
from glm.messages import Conversation, Event, Message, Sampling, Text, ToolSpec

NO_TOOLS = "ChatGLM-6B knows no tools; open a ChatGLM3 model for them"
_YEAR = "[[训练时间]]"  # stands for the year in what the model has learnt from
_WIDE = dict(zip(",!:;?", "，！：；？", strict=True))
_CHINESE = "[\u4e00-\u9fff]"
_NARROW = "[,!:;?]"


class ChatGLM:
    """The dialect bound to a tokenizer."""

    name = "chatglm"
    defaults = Sampling(temperature=0.95, top_p=0.7)

    def __init__(self, tokenizer: Vocabulary) -> None:
        self.tokenizer = tokenizer
        self.start = (tokenizer.id("[gMASK]"), tokenizer.id("<sop>"))  # behind the text
        self.end = tokenizer.id("<eop>")
        self.stop = (self.end,)

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The ids up to `<sop>`, which the answer follows. Raises BadRequest for tools."""
        return self.raw(_text(conversation))

    def render(self, conversation: Conversation) -> Iterator[Piece]:
        """The finished conversation; the last answer and `<eop>` are learnt."""
        *before, last = conversation.messages or (Message("assistant"),)
        if last.role != "assistant":
            raise BadRequest("a training conversation ends with an answer")
        yield Piece(self.prompt(Conversation(tuple(before), conversation.tools)), False)
        yield Piece((*self.tokenizer.encode(last.content), self.end), taught(last))

    def raw(self, text: str) -> tuple[int, ...]:
        """The ids of a text as it is, to be continued."""
        return (*self.tokenizer.encode(text), *self.start)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ChatGLMParser:
        return ChatGLMParser(self.tokenizer, self.stop)

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """The rounds are text, so only control tokens stand out."""
        return [RoleToken(p.id, p.text, None, p.special) for p in self.tokenizer.pieces(ids)]


class ChatGLMParser(PlainParser):
    """An answer as the official process_response shows it, while it arrives."""

    def __init__(self, tokenizer: Vocabulary, stop: tuple[int, ...]) -> None:
        super().__init__(tokenizer, stop)
        self._space = ""  # held back: it is dropped at the end
        self._begun = False
        self._year = Rewriter(re.escape(_YEAR), beginnings(_YEAR), lambda _: "2023年")
        beside = f"(?<={_CHINESE}){_NARROW}|{_NARROW}(?={_CHINESE})"
        self._wide = Rewriter(beside, _NARROW, lambda found: _WIDE[found[0]])

    def finish(self) -> list[Event]:
        if self._ended:
            return []
        self._ended = True
        text = self._year.push(self._stripped(self._decoder.flush())) + self._year.flush()
        return self._show(self._wide.push(text) + self._wide.flush())

    def _text(self, text: str) -> list[Event]:
        return self._show(self._wide.push(self._year.push(self._stripped(text))))

    def _stripped(self, text: str) -> str:
        """The text without spaces at the beginning or, for now, at its end."""
        kept = text.rstrip()
        if not kept:
            self._space += text
            return ""
        out = self._space + kept
        out, self._space = (out if self._begun else out.lstrip()), text[len(kept) :]
        self._begun = True
        return out

    def _show(self, text: str) -> list[Event]:
        if not text:
            return []
        self._texts.append(text)
        return [Text(text)]


def _text(conversation: Conversation) -> str:
    """The conversation as one text. Raises BadRequest for tools."""
    messages = conversation.messages
    if conversation.tools or any(message.role == "tool" for message in messages):
        raise BadRequest(NO_TOOLS)
    questions = sum(message.role == "user" for message in messages)
    alone = questions == 1 and messages[-1].role == "user"
    out, number = [], 0
    for message in messages:
        if message.role == "system":
            out.append(f"{message.content}\n" if message.content else "")
        elif message.role == "user":
            rounds = f"[Round {number}]\n问：{message.content}\n答："
            out.append(message.content if alone else rounds)
            number += 1
        else:
            out.append(f"{message.content}\n" if number else "")
    return "".join(out)

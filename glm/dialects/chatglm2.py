"""ChatGLM2's prompt language: numbered rounds of 问 and 答, no roles, no tools.

`[gMASK] sop` + encode("[Round 1]\\n\\n问：q\\n\\n答：a\\n\\n[Round 2]..."), as the official
build_prompt (THUDM/chatglm2-6b, modeling_chatglm.py). The text is encoded as one, so produced
ids are not sent again. A system text, which the family does not know, stands before round 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from glm.dialects.base import Piece, RoleToken, taught
from glm.dialects.vocabulary import Vocabulary
from glm.errors import BadRequest
from glm.messages import Conversation, Event, Message, Sampling, Text, ToolSpec
from glm.tokenizer import Tokenizer


class ChatGLM2:
    """The dialect bound to a tokenizer."""

    name = "chatglm2"
    defaults = Sampling(temperature=0.8, top_p=0.8)

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.start = (tokenizer.id("[gMASK]"), tokenizer.id("sop"))
        self.end = tokenizer.eos
        self.stop = (self.end,)

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The ids up to the 答： that the model continues. Raises BadRequest for tools."""
        return self.raw(self._text(conversation))

    def render(self, conversation: Conversation) -> Iterator[Piece]:
        """The finished conversation; the last answer and eos are learnt."""
        *before, last = conversation.messages or (Message("assistant"),)
        if last.role != "assistant":
            raise BadRequest("a training conversation ends with an answer")
        yield Piece(self.prompt(Conversation(tuple(before), conversation.tools)), False)
        yield Piece((*self.tokenizer.encode(last.content), self.end), taught(last))

    def raw(self, text: str) -> tuple[int, ...]:
        """The ids of a text without roles, to be continued."""
        return (*self.start, *self.tokenizer.encode(text))

    def parser(self, tools: Sequence[ToolSpec] = ()) -> PlainParser:
        return PlainParser(self.tokenizer, self.stop)

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """The rounds are text, so only control tokens stand out."""
        return [RoleToken(p.id, p.text, None, p.special) for p in self.tokenizer.pieces(ids)]

    def _text(self, conversation: Conversation) -> str:
        if conversation.tools:
            raise BadRequest("ChatGLM2 knows no tools; open a ChatGLM3 model for them")
        out, number, asked = [], 0, False
        for message in conversation.messages:
            if message.role == "tool":
                raise BadRequest("ChatGLM2 knows no tools; open a ChatGLM3 model for them")
            if message.role == "system":
                out.append(f"{message.content}\n\n" if message.content else "")
            elif message.role == "user":
                number += 1
                out.append(f"[Round {number}]\n\n问：{message.content}\n\n答：")
                asked = True
            else:
                out.append(f"{message.content}\n\n" if asked else "")
        return "".join(out)


class PlainParser:
    """Ids of an answer that is text and nothing else."""

    def __init__(self, tokenizer: Vocabulary, stop: tuple[int, ...]) -> None:
        self._decoder, self._stop = tokenizer.decoder(), stop
        self._texts: list[str] = []
        self._ended = False

    def feed(self, ids: Sequence[int]) -> list[Event]:
        events: list[Event] = []
        for token in ids:
            if self._ended:
                break
            if token in self._stop:
                events += self.finish()
            else:
                events += self._text(self._decoder.push(token))
        return events

    def finish(self) -> list[Event]:
        if self._ended:
            return []
        self._ended = True
        return self._text(self._decoder.flush())

    def message(self) -> Message:
        return Message("assistant", "".join(self._texts))

    def _text(self, text: str) -> list[Event]:
        text = text if self._texts else text.lstrip()
        if not text:
            return []
        self._texts.append(text)
        return [Text(text)]

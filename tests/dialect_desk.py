"""Every dialect on a vocabulary of its family, for the table that runs through all of them.

The GLM-4 family has a generated rank file, the chat template a generated tokenizer.json.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from glm.dialects import DIALECTS
from glm.dialects.marks import Mark, encode
from glm.messages import CallText, Conversation, Event, Message, Text, Thinking, ToolSpec
from glm.tokenizer import GLM4_SPECIALS, Tokenizer
from glm.tokenizers.hub import HubTokenizer
from glm.tokenizers.ranks import RankTokenizer
from tests.shared_files import tokenizer_file
from tests.tiny_ice import ice

TAGS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "/nothink"),
)
WORDS = ("tool", "_call", "get_weather", "arg", ">\n", "</", '":', ' "', "}\n", "北京", "hello")
CHATML = """
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content | trim }}
{%- for c in m.tool_calls or [] %}
<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA = """{{ bos_token }}
{%- for tool in tools or [] %}{{ tool | tojson }}
{% endfor %}
{%- for m in messages %}<|im_start|>{{ m.role }}

{% if m.tool_calls %}
{%- for c in m.tool_calls %}{{ '; ' if not loop.first }}
{{- '{"name": "' + c.function.name + '", "parameters": ' }}
{{- c.function.arguments | tojson + '}' }}{% endfor %}
{%- else %}{{ m.content }}{% endif %}<|im_end|>
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant

{% endif %}"""


@dataclass(frozen=True)
class Desk:
    """`calls` and `thinks`: what the dialect can say; `text_with_calls`: both in one answer."""

    name: str
    dialect: Any
    calls: bool = True
    thinks: bool = False
    text_with_calls: bool = True
    lead: tuple[int, ...] = ()

    def answer(self, message: Message, tools: tuple[ToolSpec, ...] = ()) -> list[int]:
        """The ids that training teaches: what a model writes, and the token that ends it."""
        talk = Conversation((Message("user", "?"), message), tools if self.calls else ())
        return [*self.lead, *(i for p in self.dialect.render(talk) if p.learn for i in p.ids)]

    def broken(self, name: str, body: str) -> list[int]:
        """The ids of a call whose body is anything."""
        tokenizer = self.dialect.tokenizer
        if self.name in ("chatglm3", "glm4", "glm_z1"):
            text, end = f"{name}\n{body}", "<|observation|>"
            return [*self.lead, *tokenizer.encode(text), tokenizer.id(end)]
        if self.name == "llama":
            text = f'{{"name": "{name}", "parameters": {body}}}'
            return [*tokenizer.encode(text), tokenizer.eos]
        inside = f'{{"name": "{name}", "arguments": {body}}}'
        inside = inside if self.name == "template" else f"{name}\n{body}"
        parts = (Mark("</think>"), Mark("<tool_call>"), inside, Mark("</tool_call>"))
        return [*encode(tokenizer, parts), tokenizer.eos]


def desks() -> dict[str, Callable[[], Desk]]:
    """Name -> how to make it; made once, when a test asks."""
    return {
        "chatglm": lambda: Desk("chatglm", DIALECTS["chatglm"](ice()), calls=False),
        "chatglm2": lambda: Desk("chatglm2", DIALECTS["chatglm2"](chatglm()), calls=False),
        "chatglm3": lambda: Desk("chatglm3", DIALECTS["chatglm3"](chatglm())),
        "glm4": lambda: Desk("glm4", DIALECTS["glm4"](ranks())),
        "glm_z1": lambda: Desk(
            "glm_z1", DIALECTS["glm_z1"](ranks()), lead=tuple(ranks().encode("hm\n</think>"))
        ),
        "glm45": lambda: Desk("glm45", DIALECTS["glm45"](ranks(TAGS)), thinks=True),
        "glm45 without ids": lambda: Desk("glm45", DIALECTS["glm45"](ranks()), thinks=True),
        "glm47": lambda: Desk("glm47", DIALECTS["glm47"](ranks(TAGS)), thinks=True),
        "template": lambda: Desk("template", DIALECTS["template"](hub(CHATML)), thinks=True),
        "llama": lambda: Desk("llama", DIALECTS["template"](hub(LLAMA)), text_with_calls=False),
    }


@cache
def desk(name: str) -> Desk:
    return desks()[name]()


@cache
def chatglm() -> Tokenizer:
    return Tokenizer(tokenizer_file())


@cache
def ranks(more: tuple[str, ...] = ()) -> RankTokenizer:
    """A rank file of single bytes and a few words."""
    tokens = [bytes([byte]) for byte in range(256)]
    for word in WORDS:
        data = word.encode()
        tokens += [data[:n] for n in range(2, len(data) + 1) if data[:n] not in tokens]
    file = Path(mkdtemp()) / "tokenizer.model"
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens))
    file.write_text("\n".join(lines) + "\n")
    return RankTokenizer(file, (*GLM4_SPECIALS, *more))


@cache
def hub(template: str, tags: tuple[str, ...] = TAGS[:4]) -> HubTokenizer:
    """A byte-level tokenizer.json with a template, and control tokens."""
    folder = Path(mkdtemp())
    vocabulary = {char: i for i, char in enumerate(byte_characters())}
    names = ("<|im_start|>", "<|im_end|>", *tags)
    added = [
        {
            "id": len(vocabulary) + i,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": i < 2,
        }
        for i, name in enumerate(names)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level["use_regex"] = True
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    config = {"version": "1.0", "added_tokens": added, "model": model}
    config |= {"pre_tokenizer": byte_level, "decoder": byte_level}
    (folder / "tokenizer.json").write_text(json.dumps(config))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    settings |= {"eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return HubTokenizer(folder)


def byte_characters() -> Iterator[str]:
    """One printable character a byte, as byte-level tokenizers write them."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    other = itertools.count(256)
    for byte in range(256):
        yield chr(byte if byte in plain else next(other))


def parse(
    dialect: Any, ids: list[int], cuts: Iterable[int] = (), tools: tuple[ToolSpec, ...] = ()
) -> tuple[list[Event], Message]:
    """Joined events of ids fed in the parts that `cuts` make, and the message."""
    parser, events = dialect.parser(tools), []
    for start, end in itertools.pairwise([0, *cuts, len(ids)]):
        events += parser.feed(ids[start:end])
    events += parser.finish()
    return joined(events), parser.message()


def joined(events: Iterable[Event]) -> list[Event]:
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, Text | CallText | Thinking) and type(last) is type(event):
            out[-1] = type(event)(last.text + event.text)
        else:
            out.append(event)
    return out

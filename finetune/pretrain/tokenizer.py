"""Makes the embedded model's tokenizer: sentencepiece BPE, about 6000 pieces.

    python -m finetune.pretrain.tokenizer --out DIR

Words are learnt without their space, digits and common Chinese characters stand alone, so that a
name is the same tokens wherever it stands and can be copied. The fixed parts of a tool prompt are
pieces of their own. Role tokens are no pieces: they are ids after the vocabulary.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from finetune.pretrain.dialogues import Pack, Writer
from finetune.pretrain.words import common_words, hanzi, lists
from glm.dialects.chatglm3 import TOOL_SYSTEM, call_text
from glm.messages import Message

SPACE = "\u2581"
PUNCTUATION = "，。？！：；“”‘’「」《》（）、…·—～°℃℉²×÷＝"
BORDER = "\u241f"  # keeps the space of the dummy prefix out of the pieces that are learnt
MERGES = 2400  # pieces learnt from words
OBJECT = (
    '"parameters": {\n            "type": "object",\n            "properties": {\n                "'
)
STRUCTURE = (
    # the frame of a call
    " \n",
    "```python\ntool_call(",
    ")\n```",
    "', ",
    '", ',
    "='",
    '="',
    "')\n```",
    '")\n```',
    # a tool list as json.dumps(indent=4) writes it
    TOOL_SYSTEM + '\n[\n    {\n        "name": "',
    '\n    },\n    {\n        "name": "',
    '",\n        "description": "',
    '",\n        ' + OBJECT,
    *(
        f'": {{\n                    "type": "{kind}",\n                    "description": "'
        for kind in ("string", "integer", "number", "boolean")
    ),
    '"\n                },\n                "',
    '"\n                }\n            },\n            "required": [\n                "',
    '",\n                "',
    '"\n            ]\n        }\n    }\n]',
    '"\n            ]\n        }\n    },\n    {\n        "name": "',
    "    ",
    "        ",
    # JSON on one line
    '{"',
    '": "',
    '": ',
    '", "',
    ', "',
    '"}',
    '[{"',
    '"}]',
    '": ["',
    '"], "rows": [[',
    "]]}",
    "], [",
    # the frame of a thought
    "I need ",
    ", so I will call ",
    "，我将调用 ",
    "需要",
)


def text_of(pack: Pack) -> Iterator[str]:
    """Everything said in a pack."""
    for spec in pack.tools:
        yield f"{spec.name} {spec.description}"
        yield str(spec.parameters)
    for dialogue in pack.dialogues:
        for message in dialogue:
            yield from _words_of(message)


def _words_of(message: Message) -> Iterator[str]:
    yield message.content
    for call in message.calls:
        yield f"{call.name} {call_text(call)}"


def word_counts(packs: int) -> Counter[str]:
    """How often each Latin word is met in generated packs, with the word lists on top."""
    writer = Writer(random.Random("tokenizer"))
    counts: Counter[str] = Counter()
    for index in range(packs):
        make = (writer.builtin, writer.some, writer.unseen, writer.chat)[index % 4]
        for text in text_of(make(12)):
            counts.update(re.findall(r"[A-Za-z]+", text))
    for rank, word in enumerate(common_words()):
        counts[word] += max(3, 3000 // (rank + 20))
        counts[word.capitalize()] += 2
    for words in lists().values():
        counts.update(word for entry in words for word in re.findall(r"[A-Za-z]+", entry))
    return counts


def train(out: Path, packs: int = 1200) -> Path:
    """Trains the tokenizer into `out`/tokenizer.model and returns its path."""
    counts = word_counts(packs)
    lines = [
        BORDER + word
        for word, count in sorted(counts.items())
        for _ in range(min(count, 300) if count > 2 else 1)
    ]
    alphabet = hanzi() + PUNCTUATION + "".join(chr(code) for code in range(33, 127))
    lines += list(dict.fromkeys(alphabet)) * 2
    random.Random(0).shuffle(lines)
    symbols = [text.replace(" ", SPACE) for text in dict.fromkeys(STRUCTURE)]
    size = 3 + 256 + len(symbols) + len(set(alphabet)) + 1 + MERGES
    out.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(out / "tokenizer"),
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        pretokenization_delimiter=BORDER,
        user_defined_symbols=symbols,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        split_digits=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=2,
        minloglevel=2,
    )
    return out / "tokenizer.model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.model")
    print(train(parser.parse_args().out))


if __name__ == "__main__":
    main()

"""Figures of a checkpoint on dialogues from skeletons and words kept out of training.

    python -m finetune.pretrain.dev /var/tmp/tiny --count 160 [--show 20]

Free greedy decoding of the averaged weights: right tool, right arguments, answer with the values
of the observation of the model's own call, no call where none is needed. Not the frozen scoring
set: that one is `finetune.pretrain.score`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch

from finetune.pretrain import simulate
from finetune.pretrain.batches import Batches
from finetune.pretrain.decode import greedy
from finetune.pretrain.dialogues import NAMES, Pack, Writer
from finetune.pretrain.model import Network, Shape
from glm.messages import Message, ToolCall
from glm.tokenizer import Tokenizer
from tools.builtin import SPECS


@dataclass(slots=True)
class Case:
    """A dialogue up to its last request, what is right, and what the model said."""

    given: tuple[Message, ...]
    wanted: ToolCall | None
    reply: str
    observation: str = ""
    call: ToolCall | None = None
    text: str = ""
    answer: str = ""
    marks: dict[str, bool] = field(default_factory=dict)

    @property
    def chinese(self) -> bool:
        return bool(simulate.HANZI.search(self.reply))


def cases(pack: Pack) -> list[Case]:
    """One case per dialogue: its last user turn."""
    out = []
    for dialogue in pack.dialogues:
        last = max(i for i, m in enumerate(dialogue) if m.role == "user")
        call = next((m.calls[0] for m in dialogue[last:] if m.calls), None)
        told = next((m.content for m in dialogue[last:] if m.role == "tool"), "")
        out.append(Case(dialogue[: last + 1], call, dialogue[-1].content, told))
    return out


class Examiner:
    """Decodes and marks with one network."""

    def __init__(self, net: Network, tokenizer: Tokenizer) -> None:
        self.net, self.batches = net, Batches(tokenizer)
        self.dialect = self.batches.dialect
        self.ask = tokenizer.id("<|assistant|>")

    def run(self, pack: Pack) -> list[Case]:
        """The marked cases of a pack."""
        found = cases(pack)
        self._speak(pack, found)
        called = [case for case in found if case.call]
        for case in called:
            assert case.call
            if case.call.name in NAMES:
                case.observation = simulate.observe(case.call.name, case.call.arguments, 7)
        if called:
            self._speak(pack, called, again=True)
        for case in found:
            mark(case)
        return found

    def _speak(self, pack: Pack, found: list[Case], again: bool = False) -> None:
        rows = []
        for case in found:
            messages = list(case.given)
            if again and case.call:
                messages += [
                    Message("assistant", case.text, calls=(case.call,)),
                    Message("tool", case.observation),
                ]
            rows.append([*self.batches.row(tuple(messages))[0][:-1], self.ask])
        prompt = self.batches.prompt(pack)
        for case, ids in zip(found, greedy(self.net, prompt, rows, self.dialect.stop), strict=True):
            parser = self.dialect.parser()
            parser.feed(ids)
            parser.finish()
            message = parser.message()
            if again:
                case.answer = message.content
            else:
                case.text, case.call = message.content, next(iter(message.calls), None)


def mark(case: Case) -> None:
    """Sets the marks of a case: tool, arguments, answer, or abstain and reply."""
    if case.wanted is None:
        case.marks = {"abstain": case.call is None, "reply": case.text == case.reply}
        return
    call, wanted = case.call, case.wanted
    right = call is not None and call.name == wanted.name
    case.marks["tool"] = right
    case.marks["arguments"] = right and call is not None and call.arguments == wanted.arguments
    if wanted.name in NAMES:
        needed = simulate.values(wanted.name, case.observation) if right else [""]
        case.marks["answer"] = right and all(value in case.answer for value in needed)
    else:
        case.marks["answer"] = case.marks["arguments"] and case.answer == case.reply


def table(found: list[Case]) -> dict[str, dict[str, str]]:
    """Counts right / all by tool, by language and in all."""
    rows: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for case in found:
        tool = case.wanted.name if case.wanted else "none"
        tool = tool if tool in (*NAMES, "none") else "made-up"
        for row in ("all", "zh" if case.chinese else "en", tool):
            for name, value in case.marks.items():
                rows[row][name].append(value)
    return {
        row: {name: f"{sum(values)}/{len(values)}" for name, values in columns.items()}
        for row, columns in rows.items()
    }


def load(folder: Path) -> tuple[Network, Tokenizer, dict]:
    """The averaged weights of a run."""
    state = torch.load(folder / "last.pt", weights_only=True, map_location="cpu")
    net = Network(Shape(**state["shape"]))
    net.load_state_dict(state["average"])
    return net.eval(), Tokenizer.open(folder), state["progress"]


def report(title: str, found: list[Case], show: int) -> None:
    print(f"== {title}")
    for row, columns in sorted(table(found).items()):
        print(f"  {row:14}", "  ".join(f"{name} {value}" for name, value in columns.items()))
    wrong = [case for case in found if not all(case.marks.values())]
    for case in wrong[:show]:
        wanted = (
            case.wanted
            and f"{case.wanted.name} {json.dumps(dict(case.wanted.arguments), ensure_ascii=False)}"
        )
        got = (
            case.call
            and f"{case.call.name} {json.dumps(dict(case.call.arguments), ensure_ascii=False)}"
        )
        print(
            "  -",
            repr(case.given[-1].content),
            "| want",
            wanted or case.reply[:50],
            "| got",
            got or case.text[:80],
        )
        if case.call and wanted == got:
            print("      ", case.observation, "->", case.answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--show", type=int, default=0, help="print this many failures of each part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", default="dev")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net, tokenizer, progress = load(args.run)
    print(progress)
    examiner = Examiner(net, tokenizer)
    writer = Writer(random.Random(args.seed), dev=True)
    found = [c for _ in range(args.count // 40) for c in examiner.run(writer.builtin(40))]
    report(f"all {len(SPECS)} built-in tools", found, args.show)
    found = [c for _ in range(args.count // 20) for c in examiner.run(writer.unseen(8))]
    report("made-up tools", found, args.show // 2)
    found = [c for _ in range(args.count // 60) for c in examiner.run(writer.chat(12))]
    report("chat", found, args.show // 3)


if __name__ == "__main__":
    main()

"""Convert a model, or merge an adapter into it: another layout in a new folder, compared.

    python -m glm.convert MODEL NEW_FOLDER --to native
    python -m glm.convert MODEL NEW_FOLDER --to gguf --adapter ADAPTER --dtype q8_0

Targets: hub, native, gguf (the model, with the adapter merged in); peft, ptuning (the adapter
alone). The folder appears when it is complete and equal to the source, or not at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from glm.errors import AlphaNeeded, GlmError
from glm.export import DTYPES, TARGETS, Wanted, export


class Screen:
    """Progress on one line of a terminal, one line a step elsewhere."""

    def __init__(self) -> None:
        self._text, self._wide = "", 0

    def __call__(self, text: str, part: float | None) -> None:
        if not sys.stderr.isatty():
            if text != self._text:
                print(text, file=sys.stderr)
            self._text = text
            return
        line = text if part is None else f"{text} {part:4.0%}"
        print(f"\r{line:<{self._wide}}", end="", file=sys.stderr, flush=True)
        self._wide = len(line)

    def done(self) -> None:
        """Leave the line."""
        if self._wide:
            print(f"\r{'':<{self._wide}}\r", end="", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert, and print what came of it; 1 with one sentence when it cannot be done."""
    given = _parser().parse_args(argv)
    screen = Screen()
    wanted = Wanted(given.source, given.target, given.to, given.adapter, given.dtype, given.alpha)
    try:
        written = export(wanted, screen)
    except GlmError as error:
        screen.done()
        more = " (--alpha 32)" if isinstance(error, AlphaNeeded) else ""
        print(f"{error}{more}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        screen.done()
        print("stopped; nothing was kept", file=sys.stderr)
        return 130
    screen.done()
    print(f"{written.folder}: {TARGETS[written.to].title}, {written.bytes / 1e6:,.1f} MB")
    print(written.verdict)
    for note in written.verdict.notes:
        print(f"note: {note}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glm.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="MODEL", help="folder of the model")
    parser.add_argument("target", metavar="NEW_FOLDER", help="folder to make")
    parser.add_argument("--to", required=True, choices=tuple(TARGETS), help="what to write")
    parser.add_argument("--adapter", help="merge this adapter in (peft, ptuning: write it)")
    parser.add_argument("--dtype", default="auto", help=f"one of {', '.join(DTYPES)}")
    parser.add_argument("--alpha", type=float, help="alpha of a LoRA file that does not say it")
    return parser


if __name__ == "__main__":
    sys.exit(main())

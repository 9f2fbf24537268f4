"""The command line of the two official formatters: `--path FILE` to ./formatted_data/."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finetune.convert import Conversion, Report, convert, write_file
from finetune.files.rows import Rows, open_rows
from glm.errors import BadRequest

FOLDER = "formatted_data"


def main(
    about: str | None,
    out: str,
    wanted: Conversion,
    turns: Callable[[dict[str, Any]], int] | None = None,
) -> int:
    """Exit code 0, bad instances or not, as before; 2 when there is nothing to write.

    `turns` counts those of a row, where the official script prints how many rows have how many.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", required=True, help="the original file")
    given = parser.parse_args()
    report, lengths = Report(), Counter[int]()

    def counted(rows: Rows) -> Iterator[dict[str, Any]]:
        for row in convert(rows, wanted, report):
            if turns is not None:
                lengths[turns(row)] += 1
            yield row

    file = Path(FOLDER) / out
    try:
        write_file(counted(open_rows(given.path)), file)
    except BadRequest as error:
        print(error, file=sys.stderr)
        return 2
    print(f"err_count: {sum(report.left_out.counts.values())}")
    for line in report.left_out.lines("{reason}"):
        print(line)
    print(f"train_examples: {report.written}")
    if lengths:
        print("turns: rows", dict(sorted(lengths.items())))
    print(f"written to {file}" if report.written else f"{file} is left as it was")
    return 0 if report.written else 2

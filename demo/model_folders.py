"""The folders in which the operator keeps models, remembered in a small JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from demo.text import Refused


class Folders:
    """`file` holds a list of paths; what else it may hold is left out."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> list[Path]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        rows = found if isinstance(found, list) else ()
        return [Path(row) for row in rows if isinstance(row, str)]

    def add(self, text: str) -> Path:
        """Raises Refused for what is no folder."""
        path = Path(text.strip()).expanduser().absolute()
        if not text.strip() or not path.is_dir():
            raise Refused("models.no_folder", path=text.strip())
        self._write([*(one for one in self.all() if one != path), path])
        return path

    def drop(self, text: str) -> None:
        self._write([one for one in self.all() if str(one) != text])

    def _write(self, paths: list[Path]) -> None:
        beside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps([str(path) for path in paths], ensure_ascii=False))
            beside.replace(self._file)
        except OSError as error:
            raise Refused("models.not_kept", path=self._file) from error

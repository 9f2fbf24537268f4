"""read_file: the text of a file of the conversation, by its name; never a path."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glm.errors import BadRequest, ToolError
from glm.messages import ToolSpec

if TYPE_CHECKING:
    from glm.cancel import Cancel


SPEC = ToolSpec(
    "read_file",
    "Read the text of an uploaded file",
    {
        "type": "object",
        "properties": {"name": {"type": "string", "description": "The name of the file"}},
        "required": ["name"],
    },
)

FILE_BYTES = 10_000_000
CHARACTERS = 3000  # what the model reads
TRUNCATED = " [truncated]"


def read_file(name: str, files: Mapping[str, Path], cancel: Cancel | None = None) -> str:
    """The beginning of the file's text. Raises ToolError, which names the files there are."""
    text = text_of(named(name, files), files, cancel).strip()
    return text if len(text) <= CHARACTERS else text[:CHARACTERS].rstrip() + TRUNCATED


def named(name: str, files: Mapping[str, Path]) -> str:
    """The upload a model means: the name itself, in other case, or the only one without ending."""
    if not files:
        raise ToolError("no files have been uploaded")
    wanted = _plain(name)
    if not wanted:
        raise ToolError("the argument 'name' is missing")
    if name in files:
        return name
    for same in (
        [file for file in files if _plain(file) == wanted],
        [file for file in files if _plain(file).rpartition(".")[0] == wanted],
    ):
        if len(same) == 1:
            return same[0]
    shown = ", ".join(list(files)[:20]) + (", ..." if len(files) > 20 else "")
    raise ToolError(f"no file named '{name.strip()[:80]}'; uploaded: {shown}"[:1500])


def text_of(file: str, files: Mapping[str, Path], cancel: Cancel | None = None) -> str:
    """The text of an upload. Raises ToolError for one that is no text, or too large."""
    from tools.uploads import read_attachment

    try:
        return read_attachment(files[file], FILE_BYTES, file, cancel).text
    except BadRequest as error:
        raise ToolError(str(error)) from None


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())

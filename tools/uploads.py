"""The text of an uploaded file: plain text, csv or pdf, told apart by its bytes, not by its name.

A file that cannot be read is refused with a sentence that names it (BadRequest); nothing is
guessed. Pictures, scanned pages and office documents are not read.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glm.cancel import Cancel
from glm.errors import BadRequest
from tools import separate

PDF_SECONDS = 30.0
_TABLES = (".csv", ".tsv")
_BOMS = (  # the longer first: UTF-32 LE starts with the mark of UTF-16 LE
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file's name without its folder, its text with "\\n" line ends, and what it was."""

    name: str
    text: str
    kind: Literal["text", "csv", "pdf"]


def read_attachment(
    path: Path | str, limit_bytes: int = 5_000_000, name: str = "", cancel: Cancel | None = None
) -> Attachment:
    """The text of one file; BadRequest says why there is none.

    `name` is what the file is called where it is stored under another name. `cancel` ends the
    reading of a pdf.
    """
    path = Path(path)
    name = _shown_name(name or path.name)
    data = _read(path, name, limit_bytes)
    kind: Literal["text", "csv", "pdf"]
    if b"%PDF-" in data[:1024]:
        text, kind = _pdf_text(path, name, cancel), "pdf"
    else:
        text, kind = _decoded(data, name), "csv" if name.lower().endswith(_TABLES) else "text"
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise BadRequest(f"{name} is empty")
    if kind == "csv":
        _check_csv(text, name)
    return Attachment(name, text, kind)


def read_text(path: Path, limit_bytes: int, name: str = "") -> str:
    """The text of a file that is no pdf, whatever its encoding; BadRequest as above."""
    name = _shown_name(name or path.name)
    return _decoded(_read(path, name, limit_bytes), name)


def _read(path: Path, name: str, limit_bytes: int) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            raise BadRequest(f"{name} is not a file")
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
            size = path.stat().st_size
    except OSError as error:
        raise BadRequest(f"{name} cannot be read ({error.strerror})") from None
    except ValueError:  # a NUL in the name
        raise BadRequest(f"{name} is not a file") from None
    if len(data) > limit_bytes:
        raise BadRequest(
            f"{name} has {size / 1e6:.1f} MB; at most {limit_bytes / 1e6:g} MB can be attached"
        )
    if not data:
        raise BadRequest(f"{name} is empty")
    return data


def _decoded(data: bytes, name: str) -> str:
    """UTF-8, UTF-16 or UTF-32 with a byte order mark, or GB18030."""
    encoding = next((known for bom, known in _BOMS if data.startswith(bom)), None)
    if encoding is None and b"\0" in data:
        raise BadRequest(f"{name} is not a text, csv or pdf file")
    for known in (encoding,) if encoding else ("utf-8", "gb18030"):
        try:
            text = data.decode(known)
        except UnicodeDecodeError:
            continue
        if _is_text(text) and (known != "gb18030" or _is_chinese(data, text)):
            return text
    if encoding is None and sum(byte < 9 or 13 < byte < 32 for byte in data) <= len(data) // 100:
        raise BadRequest(f"{name} is in an unknown encoding; save it as UTF-8 and try again")
    raise BadRequest(f"{name} is not a text, csv or pdf file")


def _is_text(text: str) -> bool:
    """Not more than one control character in a hundred (terminal colours are let through)."""
    return len(re.findall(r"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]", text)) <= len(text) // 100


def _is_chinese(data: bytes, text: str) -> bool:
    """Whether bytes that decode as GB18030 were meant so.

    Western text in other encodings decodes too, to rare characters whose second byte is ASCII;
    common Chinese characters have both bytes from 0xA1 up.
    """
    high = sum(byte >= 0xA1 for byte in data)
    wide = sum(ord(character) > 0x7F for character in text)
    return high >= 1.5 * wide


def _check_csv(text: str, name: str) -> None:
    """Refuse a table whose quotes never close, with the line."""
    rows = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        for _ in rows:
            pass
    except csv.Error as error:
        raise BadRequest(f"{name}, line {rows.line_num}: {error}") from None


def _pdf_text(path: Path, name: str, cancel: Cancel | None) -> str:
    script = Path(__file__).with_name("pdf_text.py")
    try:
        told = separate.answer(script, str(path.resolve()), seconds=PDF_SECONDS, cancel=cancel)
    except separate.Ended as ended:
        if ended.late:
            raise BadRequest(f"{name} takes more than {PDF_SECONDS:g} s to read") from None
        raise BadRequest(f"{name} is not a readable pdf") from None
    answer: dict[str, str] = json.loads(told)
    if "problem" in answer:
        raise BadRequest(f"{name} {answer['problem']}")
    return answer["text"].encode("utf-8", "replace").decode()


def _shown_name(name: str) -> str:
    """The name on one line, without what could pass for markup or a fence."""
    name = name.encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029`<>|\[\]]+", "_", name)[:100] or "file"

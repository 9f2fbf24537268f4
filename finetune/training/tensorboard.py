"""The file that TensorBoard shows: numbers by name and step, in its own binary form.

    events = EventFile(folder, step=0)
    events.log({"train/loss": 1.2}, 10)        # then: tensorboard --logdir runs

Ours, since TensorBoard itself is 30 MB with a web server and is needed to look only. A record is
its length, its bytes and a checksum of each (tensorflow/core/lib/io/record_writer.cc); its bytes
are a protobuf Event (tensorflow/core/util/event.proto). Nothing but numbers is written.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

VERSION = b"brain.Event:2"
_CASTAGNOLI = 0x82F63B78  # the reversed polynomial of CRC-32C


class EventFile:
    """A new file in a folder. What others in it say of steps from `step` on no longer counts."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._write(_field(3, VERSION))
        # SessionLog START: a run that goes on measures these steps again
        self._write(_number(2, step + 1) + _field(7, _number(1, 1)))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by their names, at a step."""
        summary = b"".join(
            _field(1, _field(1, name.encode()) + b"\x15" + struct.pack("<f", value))
            for name, value in values.items()
        )
        self._write(_number(2, step) + _field(5, summary))

    def _write(self, event: bytes) -> None:
        data = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(data))
        with self.path.open("ab") as stream:
            stream.write(length + _checksum(length) + data + _checksum(data))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _checksum(data: bytes) -> bytes:
    """CRC-32C, turned as TensorFlow turns it."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _table() -> tuple[int, ...]:
    out = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
        out.append(value)
    return tuple(out)

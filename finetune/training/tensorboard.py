"""The file that TensorBoard shows: numbers by name and step.

    events = EventFile(folder, step=0)
    events.log({"train/loss": 1.2}, 10)        # then: tensorboard --logdir runs

tensorboardX makes the records. Its SummaryWriter is not used: it writes from a thread, and a full
disk would end that thread without a word. What is logged here is in the file afterwards.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter


class EventFile:
    """A new file in a folder. What others in it say of steps from `step` on no longer counts."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._records = RecordWriter(str(self.path))
        self._write(Event(file_version="brain.Event:2"))
        # a run that goes on measures these steps again
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by their names, at a step."""
        named = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=named)))

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._records.flush()

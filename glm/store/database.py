"""One SQLite file that survives a kill: opening, versions, locks. Standard library only.

Write-ahead log with synchronous=FULL: what `write()` has finished is on the disk. One
connection writes, a few read beside it; both are safe from any thread. Several processes may
open the same file. A file that is damaged, foreign or newer is refused and left as it is.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glm.errors import StoreError
from glm.store.schema import APPLICATION, INDEX, MIGRATIONS, NO_INDEX

READERS = 4
BUSY_SECONDS = 30.0
PROBE = "CREATE VIRTUAL TABLE temp.probe USING fts5(x, tokenize = trigram)"
CHECK_BELOW = 256 * 2**20  # bytes; a larger file is not read through at the start


class Database:
    """Connections to one file. `searchable` says whether the full-text index exists."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.searchable = False
        self._lock = threading.RLock()
        self._closed = False
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        with self._sentences():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)  # conversations are private; the log inherits the mode
            self._writer = self._connect()
        try:
            with self._sentences():
                self._prepare()
        except StoreError:
            self._writer.close()
            raise
        for _ in range(READERS):
            self._readers.put(None)  # opened when first needed

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk afterwards, or nothing."""
        with self._lock, self._sentences():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A consistent view; it neither waits for writers nor holds them up."""
        connection = self._readers.get()
        try:
            with self._sentences():
                if self._closed:
                    raise StoreError(f"{self.path} has been closed")
                connection = connection or self._connect()
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    connection.execute("ROLLBACK")
        finally:
            if self._closed and connection is not None:
                connection.close()
                connection = None
            self._readers.put(connection)

    def close(self) -> None:
        """Close the file; readings still going on end first. Idempotent."""
        with self._lock:
            self._closed = True
            for _ in range(READERS):
                connection = self._readers.get()
                if connection is not None:
                    connection.close()
            for _ in range(READERS):
                self._readers.put(None)
            self._writer.close()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # this program's own mistake, not the file's
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {_advice(error)}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"{self.path} cannot be opened ({reason}); choose another --data-dir"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        """Refuse what is not ours, bring the tables up to date, make the search index."""
        if self.path.stat().st_size < CHECK_BELOW:
            problem = self._value("PRAGMA quick_check(1)")
            if problem != "ok":
                raise sqlite3.DatabaseError(str(problem))
        self._refuse_foreign()
        self._writer.execute("PRAGMA journal_mode = WAL")
        if self._value("PRAGMA user_version") < len(MIGRATIONS):
            self._migrate()
        self.searchable = self._make_index()

    def _refuse_foreign(self) -> None:
        # One transaction: between two readings another program may make its tables here.
        self._writer.execute("BEGIN")
        try:
            application = self._value("PRAGMA application_id")
            tables = self._value("SELECT count(*) FROM sqlite_master")
            version = self._value("PRAGMA user_version")
        finally:
            self._writer.execute("ROLLBACK")
        if application != APPLICATION and (application or tables):
            raise StoreError(
                f"{self.path} is the database of another program; choose another --data-dir"
            )
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.path} was written by a newer version of this program (tables {version}, "
                f"this one knows up to {len(MIGRATIONS)}); update, or choose another --data-dir"
            )

    def _migrate(self) -> None:
        with self.write() as db:
            # Two programs may start at once: the version is read again under the lock.
            version = self._value("PRAGMA user_version")
            for script in MIGRATIONS[version:]:
                _run(db, script)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {max(version, len(MIGRATIONS))}")

    def _make_index(self) -> bool:
        try:
            self._writer.execute(PROBE)
            self._writer.execute("DROP TABLE temp.probe")
            available = True
        except sqlite3.OperationalError:
            available = False
        triggers = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
        if available == bool(self._value(triggers)):
            return available
        with self.write() as db:
            if available != bool(self._value(triggers)):
                _run(db, INDEX if available else NO_INDEX)
        return available

    def _value(self, query: str) -> Any:
        return self._writer.execute(query).fetchone()[0]


def _run(db: sqlite3.Connection, script: str) -> None:
    """The statements of a script inside the open transaction (executescript would commit it)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


def _advice(error: sqlite3.Error) -> str:
    """What happened and what to do, from SQLite's own words."""
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        return (
            f"the file cannot be written ({text}); check its folder, or choose another --data-dir"
        )
    if "locked" in text:
        return "another program keeps the file locked; close it and try again"
    if "full" in text:
        return f"nothing could be saved ({text}); make room on the disk"
    if "closed" in text:
        return "the store has been closed"
    if "not a database" in text:
        return "this file is not a database; move it away, or choose another --data-dir"
    if isinstance(error, sqlite3.OperationalError):
        return f"the database could not be used ({text})"
    return (
        f"the database is damaged ({text}); it was left as it is: move it away "
        "or restore a copy, or choose another --data-dir"
    )

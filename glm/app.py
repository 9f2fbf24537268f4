"""What one running program holds; made once and handed to the faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glm.manager import Manager
from glm.store import Store


@dataclass(frozen=True, slots=True)
class App:
    """`lang` is zh, en or auto (the browser's); `public` when others than loopback can reach it."""

    manager: Manager
    store: Store
    data_dir: Path
    lang: str = "auto"
    public: bool = False

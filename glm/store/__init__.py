"""Conversations that outlive the program: one SQLite file, and the files people carry."""

from glm.store.conversations import Node, Store, Summary, TurnRecord

__all__ = ["Node", "Store", "Summary", "TurnRecord"]

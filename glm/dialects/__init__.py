"""The prompt languages, one file each, listed here."""

from collections.abc import Callable

from glm.dialects.base import Dialect, Parser, Piece, RoleToken
from glm.dialects.chatglm2 import ChatGLM2
from glm.dialects.chatglm3 import ChatGLM3
from glm.tokenizer import Tokenizer

DIALECTS: dict[str, Callable[[Tokenizer], Dialect]] = {"chatglm2": ChatGLM2, "chatglm3": ChatGLM3}

__all__ = ["DIALECTS", "Dialect", "Parser", "Piece", "RoleToken"]

"""The prompt languages, one file each, listed here."""

from collections.abc import Callable
from typing import Any

from glm.dialects.base import Dialect, Parser, Piece, RoleToken
from glm.dialects.chatglm import ChatGLM
from glm.dialects.chatglm2 import ChatGLM2
from glm.dialects.chatglm3 import ChatGLM3
from glm.dialects.glm4 import GLM4, GLMZ1
from glm.dialects.glm45 import GLM45, GLM47
from glm.dialects.template import Template

# name -> what makes the dialect of the tokenizer of a checkpoint
DIALECTS: dict[str, Callable[[Any], Dialect]] = {
    "chatglm": ChatGLM,
    "chatglm2": ChatGLM2,
    "chatglm3": ChatGLM3,
    "glm4": GLM4,
    "glm_z1": GLMZ1,
    "glm45": GLM45,
    "glm47": GLM47,
    "template": Template,
}

__all__ = ["DIALECTS", "Dialect", "Parser", "Piece", "RoleToken"]

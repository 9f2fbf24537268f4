"""The model side of GLM Workbench. `import glm` is light: torch comes with the first `open`.

>>> import glm
>>> model = glm.open("THUDM/chatglm3-6b")
>>> text, history = model.chat("你好")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm.model import Model

__all__ = ["open"]


def open(path: str | None = None, adapter: str | None = None, **options: Any) -> Model:
    """Open a model folder or hub id (None: the embedded model); see `glm.model.Model`.

    `adapter` is a folder or file of a LoRA or a P-Tuning prefix; `options` are `device`, `dtype`,
    `bits` and `tokenizer`. Raises CheckpointError.
    """
    from glm.model import Model

    return Model(path, adapter, **options)

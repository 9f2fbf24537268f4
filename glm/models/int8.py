"""Linear modules with bitsandbytes' int8 weights and activations as they are.

bitsandbytes' own answer path, LLM.int8(), rounds the activations to 8 bit, too, and chooses the
columns it leaves out over the whole batch: what one person is told would depend on who else asks
(logits of the embedded model moved by 0.28). Here only the weights are rounded, as in the family's
own int8: nearer to the unquantised model, and alone = in company. Training takes bitsandbytes'
path, which keeps no unpacked weight for the backward pass.
"""

from __future__ import annotations

import torch
from bitsandbytes.nn import Linear8bitLt

LEVELS = 127
FEW = 16  # rows up to which torch's int8 kernel for the CPU is faster than unpacking


class Int8Linear(Linear8bitLt):
    """A Linear8bitLt that answers with unrounded activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(x)
        out = self._product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        """(T, in) to (T, out)."""
        if x.dtype == torch.float16:  # sums of unscaled weights would not fit
            return torch.nn.functional.linear(x, dequantised(self, x.dtype))
        levels = self.weight.data
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and len(x) <= FEW:
            return torch._weight_int8pack_mm(x.contiguous(), levels, scale(self).to(x.dtype))
        product = torch.nn.functional.linear(x, levels.to(x.dtype))
        return (product * scale(self)).to(x.dtype)


def scale(module: Linear8bitLt) -> torch.Tensor:
    """What one level of each row stands for, (out,) in fp32."""
    largest = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
    return largest / LEVELS


def dequantised(module: Linear8bitLt, dtype: torch.dtype) -> torch.Tensor:
    """The weight that an int8 module multiplies with, (out, in)."""
    return (module.weight.data * scale(module)[:, None]).to(dtype)


def answer_exactly(model: torch.nn.Module) -> None:
    """Give every int8 module of a model the path above. In place."""
    for module in model.modules():
        if type(module) is Linear8bitLt:
            module.__class__ = Int8Linear

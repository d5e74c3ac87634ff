"""The autograd function behind lift_loss and place_loss, the same for every implementation."""

import torch
from torch import Tensor

from liftplace import _dispatch


class PlaceFunction(torch.autograd.Function):
    """Gives the student's gradient to a loss whose fit is already known; LIFT is one group a row.

    Keeps the inputs, a 2-byte group number an element and six numbers a group.
    """

    @staticmethod
    def forward(ctx, student: Tensor, s: Tensor, t: Tensor, group: Tensor, coef: Tensor,
                terms: Tensor, impl: str, scale: int, with_coarse: bool,
                with_fine: bool) -> Tensor:  # fmt: skip
        """student: as the caller has it; s, t: the same numbers as contiguous (rows, n)."""
        ctx.save_for_backward(s, t, group, coef, terms)
        ctx.options = (impl, scale, with_coarse, with_fine)
        ctx.shape = student.shape
        return terms[0].clone()

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        impl, *options = ctx.options
        grad = _dispatch.backward(impl, *ctx.saved_tensors, grad_out, *options)
        return grad.view(ctx.shape), *(None,) * 9

"""The autograd function behind lift_loss and place_loss, the same for every implementation."""

import torch
from torch import Tensor

from liftplace import _dispatch
from liftplace._contract import Fitted, LossSum


class PlaceFunction(torch.autograd.Function):
    """Gives the student's gradient to a loss whose fit is already known; LIFT is one group a row.

    Keeps the inputs, a 2-byte group number an element and six numbers a group.
    """

    @staticmethod
    def forward(
        ctx, student: Tensor, t: Tensor, results: tuple[Tensor, ...], impl: str, loss_sum: LossSum
    ) -> Tensor:
        """student: as the caller has it; t: the teacher as (rows, n); results: loss, *fitted.

        `results` is one argument, because autograd returns a tensor that is itself an argument as
        a view, and `loss += other` may not change a view. A compiler takes the tuple apart, so
        there the loss is copied; it merges the copy with whatever comes after.
        """
        loss, *fitted = results
        ctx.save_for_backward(student, t, *fitted)
        ctx.impl, ctx.loss_sum = impl, loss_sum
        return loss.clone() if torch.compiler.is_compiling() else loss

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        student, t, *fitted = ctx.saved_tensors
        s = student.reshape(t.shape).contiguous()  # not detached: a double backward must be refused
        grad = _dispatch.backward(ctx.impl, s, t, Fitted(*fitted), grad_out, ctx.loss_sum)
        return grad.view(student.shape), *(None,) * 4

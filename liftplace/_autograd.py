"""The autograd function behind lift_loss and place_loss, the same for every implementation."""

import torch
from torch import Tensor

from liftplace import _dispatch


class PlaceFunction(torch.autograd.Function):
    """Gives the student's gradient to a loss whose fit is already known; LIFT is one group a row.

    Keeps the inputs, a 2-byte group number an element and six numbers a group.
    """

    @staticmethod
    def forward(ctx, student: Tensor, t: Tensor, found: tuple[Tensor, ...], impl: str,
                scale: int, with_coarse: bool, with_fine: bool) -> Tensor:  # fmt: skip
        """student: as the caller has it; t: the teacher as (rows, n); found: of the forward.

        `found` is one argument, because a tensor that is an argument itself comes back as a view,
        which `loss += other` may not change. So it does where a compiler takes tuples apart; what
        it makes of the copy it merges with whatever comes after.
        """
        loss, group, coef, terms = found
        ctx.save_for_backward(student, t, group, coef, terms)
        ctx.options = (scale, with_coarse, with_fine)
        ctx.impl = impl
        return loss.clone() if torch.compiler.is_compiling() else loss

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        student, t, *saved = ctx.saved_tensors
        s = student.reshape(t.shape).contiguous()  # not detached: a double backward must be refused
        grad = _dispatch.backward(ctx.impl, s, t, *saved, grad_out, *ctx.options)
        return grad.view(student.shape), *(None,) * 6

"""The autograd function behind lift_loss and place_loss, the same for every implementation."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

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
        student, *saved = ctx.saved_tensors
        # Hooks of saved tensors may hand back others than were saved: strided ones.
        t, *fitted = (x.contiguous() for x in saved)
        s = in_memory(student.reshape(t.shape))  # not detached: a double backward must be refused
        fitted, grad_out = Fitted(*fitted), in_memory(grad_out)
        grad = _dispatch.backward(ctx.impl, s, t, fitted, grad_out, ctx.loss_sum)
        return grad.view(student.shape), *(None,) * 4


class PlaceFunctionWithTangent(PlaceFunction):
    """Forward-mode AD too. Apart, because a compiler takes no function with a jvp."""

    @staticmethod
    def forward(ctx, student: Tensor, t: Tensor, results: tuple[Tensor, ...], *options) -> Tensor:
        ctx.save_for_forward(student, t, *results[1:])
        return PlaceFunction.forward(ctx, student, t, results, *options)

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_) -> Tensor:
        ones = torch.ones((), dtype=ctx.saved_tensors[-1].dtype, device=tangent.device)
        gradient, *_ = PlaceFunction.backward(ctx, ones)
        return (gradient.to(ones.dtype) * tangent).sum()


def has_tangent(x: Tensor) -> bool:
    """Whether x is a dual number of forward-mode AD."""
    if torch.compiler.is_compiling():
        return False
    return forward_ad.unpack_dual(x).tangent is not None


def in_memory(x: Tensor) -> Tensor:
    """x contiguous, with every number where kernels read it: a negated view (of `Tensor.imag`) or a
    tensor of zeros without memory (of forward-mode AD) is written out."""
    x = x.contiguous().resolve_neg()
    if not torch.compiler.is_compiling() and x._is_zerotensor():
        x = x.clone()
    return x

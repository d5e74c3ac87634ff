"""Checks of the arguments that every op and implementation shares."""

from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor

DEFAULT_GROUP_SIZE = 16  # all of the paper's tables

_CHOICES = {
    "scope": ("channel", "sample"),
    "norm": ("l1", "l2"),
    "terms": ("both", "coarse", "fine"),
    "reduction": ("mean", "sum"),
}
_SMALLEST, _LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class LossArguments(NamedTuple):
    """The arguments that all losses share; `liftplace.place_loss` explains each."""

    scope: str = "channel"
    norm: str = "l1"
    weight: str | float | Tensor = "adaptive"
    terms: str = "both"
    reduction: str = "mean"
    eps: float = 1e-7
    process_group: torch.distributed.ProcessGroup | None = None


class Rows(NamedTuple):
    """How a batch falls into rows: `count` rows of `length` elements, from `batch` samples."""

    batch: int
    count: int
    length: int

    @property
    def sample_length(self) -> int:
        """Elements per sample."""
        return self.count // self.batch * self.length if self.batch else 0


def split_rows(student: Tensor, teacher: Tensor, scope: str) -> Rows:
    """Check the two tensors against each other and return the rows that `scope` makes of them."""
    for name, x in (("student", student), ("teacher", teacher)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
        if x.dtype not in _DTYPES:
            raise TypeError(
                f"{name} must be float32, bfloat16, float16 or float64, got {x.dtype}: "
                f"convert it with {name}.float()"
            )
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must have the same shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    if student.device != teacher.device:
        raise ValueError(
            f"student and teacher must be on one device, got {student.device} and "
            f"{teacher.device}: move the teacher with teacher.to(student.device)"
        )
    if teacher.requires_grad:
        raise ValueError(
            "teacher requires grad, but the teacher is a constant of the loss: compute it under "
            "torch.no_grad() or pass teacher.detach()"
        )
    check_choice("scope", scope)
    leading = 2 if scope == "channel" else 1
    if student.dim() < leading:
        raise ValueError(
            f"student must have at least {leading} dimensions for scope={scope!r}, got shape "
            f"{tuple(student.shape)}: add a batch dimension with unsqueeze(0)"
        )
    batch, per_sample, length = student.shape[0], 1, 1
    for size in student.shape[1:leading]:
        per_sample *= size
    for size in student.shape[leading:]:
        length *= size
    if per_sample * length == 0:
        raise ValueError(
            f"student must have at least one element a sample, got shape {tuple(student.shape)}"
        )
    if length == 1:  # nothing varies in it: no fit, and a gradient of 0
        remedy = "scope='sample'" if per_sample > 1 else "samples of at least 2 elements"
        raise ValueError(
            f"scope={scope!r} makes rows of one element out of shape {tuple(student.shape)}, and "
            f"a line needs two: pass {remedy}"
        )
    return Rows(batch, batch * per_sample, length)


def group_length(group_size: int | None, num_groups: int | None, length: int) -> int:
    """Elements K of a group: `group_size`, or the row cut into `num_groups` equal parts.

    Where a row does not divide, the last group is smaller; K = ceil(length / num_groups) then gives
    the fewest groups of equal size that cover the row, which can be fewer than asked for.
    """
    check_groups(group_size, num_groups)
    group_size, num_groups = _plain_int(group_size), _plain_int(num_groups)
    if num_groups is None:
        size = min(group_size or DEFAULT_GROUP_SIZE, length)
        return length if group_count(length, size) == 1 else size
    if num_groups > length // 2:
        raise ValueError(
            f"num_groups={num_groups} leaves groups of one element in rows of {length}, and a line "
            f"needs two: pass at most {length // 2}, or use scope='sample' for longer rows"
        )
    return -(-length // num_groups)


def group_count(length: int, size: int) -> int:
    """Groups of a row of `length` elements in groups of `size`.

    The last has what is left of the row; one element alone, which no line fits, joins the group
    before it.
    """
    alone = length > size and length % size == 1
    return length // size if alone else -(-length // size)


def check_groups(group_size: int | None, num_groups: int | None) -> None:
    """Check how a row is to be cut, before its length is known."""
    if group_size is not None and num_groups is not None:
        raise ValueError(
            f"group_size={group_size} and num_groups={num_groups} are both given: pass only one"
        )
    if group_size is not None:
        _check_int("group_size", group_size, at_least=2)
    if num_groups is not None:
        _check_int("num_groups", num_groups, at_least=1)


def check_options(arguments: LossArguments) -> None:
    """Check all but `scope`, which `split_rows` checks."""
    check_choice("norm", arguments.norm)
    check_choice("terms", arguments.terms)
    check_choice("reduction", arguments.reduction)
    check_eps(arguments.eps)
    _check_weight(arguments.weight)


def check_eps(eps) -> None:
    """eps is added to a variance and divides: it must be positive and finite, in float32 too."""
    if not isinstance(eps, Real):
        raise TypeError(f"eps must be a float, got {type(eps).__name__}")
    if not _SMALLEST <= eps <= _LARGEST:
        raise ValueError(
            f"eps={eps} must be positive and a normal number of float32, from {_SMALLEST:.3g} "
            f"to {_LARGEST:.3g}, such as 1e-7"
        )


def _check_weight(weight) -> None:
    if isinstance(weight, Tensor):
        if weight.dim() != 0 or not weight.is_floating_point():
            raise ValueError(
                f"weight must be a 0-d floating-point tensor, got shape {tuple(weight.shape)} of "
                f"{weight.dtype}: pass weight.float().mean() or a float"
            )
    elif isinstance(weight, str):
        if weight != "adaptive":
            raise ValueError(f"weight={weight!r} is not known: pass 'adaptive' or a number")
    elif not isinstance(weight, Real):
        raise TypeError(
            f"weight must be 'adaptive', a float in [0, 1] or a 0-d tensor, got "
            f"{type(weight).__name__}"
        )
    elif not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight={weight} is outside [0, 1]: pass a number between 0 and 1")


def check_choice(name: str, value) -> None:
    """ValueError unless `value` is one of those that the argument `name` may have."""
    if value not in _CHOICES[name]:
        choices = ", ".join(repr(choice) for choice in _CHOICES[name])
        raise ValueError(f"{name}={value!r} is not known: pass one of {choices}")


def _plain_int(value):
    """NumPy's integers as Python's, which C and a compiler take."""
    return int(value) if isinstance(value, Integral) else value


def _check_int(name: str, value, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (Integral, torch.SymInt)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < at_least:
        raise ValueError(f"{name}={value} is too small: pass at least {at_least}")

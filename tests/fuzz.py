"""Drawn calls of the ops against the oracle.

    python -m tests.fuzz --cases 100000

A case follows from its number alone, so that `--first N --cases 1` draws it again.
"""

import argparse
import random
import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liftplace import lift_loss, place_loss
from tests.oracle import assert_matches

IMPLS = ("native", "torch", "reference")
LAYOUTS = (
    "contiguous",
    "channels_last",
    "transposed",
    "expanded",
    "flipped",
    "overlapping",
    "sliced",
)
KINDS = ("near", "far", "ties", "constant", "equal", "outlier", "Cauchy", "subnormal")
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LIMIT = 1e36  # products that sum up beyond it may overflow float32


class Case(NamedTuple):
    """A call, but for its `impl`."""

    student: Tensor
    teacher: Tensor
    options: dict[str, Any]
    is_lift: bool
    threads: int
    text: str  # what it is, for a message

    def to(self, device: str) -> "Case":
        return self._replace(student=self.student.to(device), teacher=self.teacher.to(device))

    @property
    def is_finite(self) -> bool:
        return bool(self.student.isfinite().all() and self.teacher.isfinite().all())

    @property
    def may_overflow(self) -> bool:
        if not self.student.numel():
            return False
        largest = 2 * max(x.detach().abs().max().item() for x in (self.student, self.teacher))
        of_gradient = largest / self.options["eps"]  # k, with an l2 norm and no variance
        return largest**2 * max(1.0, of_gradient) * self.student.numel() > LIMIT


def draw(number: int, *, longest: int = 70_000) -> Case:
    """Case `number`, with rows of at most about `longest` elements."""
    coin = random.Random(number)
    generator = torch.Generator().manual_seed(number)
    scope = coin.choice(("channel", "sample"))
    shape, group_size = _shape(coin, scope, longest)
    kind, layout = coin.choice(KINDS), coin.choice(LAYOUTS)
    magnitude = 10.0 ** (coin.uniform(-30, 18) if coin.random() < 0.3 else coin.uniform(-3, 3))
    if kind == "subnormal":
        magnitude = 1e-40
    dtypes = coin.choices(FLOATS, weights=(6, 2, 2, 1), k=2)
    student, teacher = (
        _laid_out(_of_dtype(magnitude * x, dtype), layout)
        for x, dtype in zip(_values(kind, shape, generator), dtypes, strict=True)
    )
    bad = ""
    if coin.random() < 0.05:
        which = coin.choice((student, teacher))
        bad = coin.choice(("nan", "inf", "-inf"))
        which[tuple(coin.randrange(size) for size in which.shape)] = float(bad)
    options = {
        "scope": scope,
        "norm": coin.choice(("l1", "l2")),
        "terms": coin.choice(("both", "coarse", "fine")),
        "weight": coin.choice(("adaptive", "adaptive", 0.0, 0.5, 1.0, torch.tensor(0.3))),
        "reduction": coin.choice(("mean", "sum")),
        "eps": coin.choice((1e-7, 1e-7, 1e-12, 1e-5, 1e-3)),
        "grad_out": coin.choice((1.0, -3.5)),
    }
    is_lift = coin.random() < 0.25
    if not is_lift:
        options["group_size"] = group_size
    text = f"case {number}: {tuple(student.shape)}, {dtypes}, {kind}, {layout}, "
    text += f"times {magnitude:.3g}, {bad}, {'lift' if is_lift else 'place'}, {options}"
    return Case(student, teacher, options, is_lift, coin.choice((1, 1, 2, 4)), text)


def _shape(coin: random.Random, scope: str, longest: int) -> tuple[list[int], int]:
    """A shape of two to six dimensions, and a group size."""
    group_size = coin.choice((2, 3, 4, 16, 16, 16, coin.randint(2, 300)))
    kind = coin.random()
    if kind < 0.02 and longest >= 70_000:
        length = coin.randint(1500, longest)
        if kind < 0.002:  # more groups than two bytes number
            length, group_size = 2 * 65_536 + coin.randint(2, 100), 2
    else:
        length = coin.randint(2, 40) if kind < 0.6 else coin.randint(41, min(longest, 1500))
    batch, channels = (1, 1) if length > 1500 else (coin.randint(1, 3), coin.randint(1, 3))
    dimensions = coin.randint(2, 6)
    if dimensions == 2:
        return (
            ([batch, length], group_size) if scope == "sample" else ([batch, channels, length], 2)
        )
    spatial = [1] * (dimensions - 3)
    for place in range(len(spatial)):
        divisors = [size for size in (1, 2, 3, 5) if length // size > 1]
        spatial[place] = coin.choice(divisors)
        length //= spatial[place]
    return [batch, channels, *spatial, length], group_size


def _values(kind: str, shape: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    s, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    if kind == "ties":
        s = s.round(decimals=1)
        return s, s + 0.5 * noise.sign()
    if kind == "constant":
        return s[..., :1].expand(shape).clone(), noise
    if kind == "equal":
        return s, s.clone()
    if kind == "outlier":
        t = s + 0.1 * noise
        t.view(-1)[0] = 1e3
        return s, t
    if kind == "Cauchy":
        return s, s + 0.1 * noise / torch.randn(shape, generator=generator)
    return (s, noise + 2.0) if kind == "far" else (s, 0.9 * s + 0.05 * noise)


def _of_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.clamp(-6e4, 6e4).to(dtype) if dtype == torch.float16 else x.to(dtype)


def _laid_out(x: Tensor, layout: str) -> Tensor:
    """x, or a part or a neighbour of it, as it may lie in memory."""
    if layout == "channels_last" and x.dim() == 4:
        return x.to(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded":
        return x[:1].expand(x.shape)
    if layout == "flipped":
        return x.flip(-1)
    if layout == "overlapping":  # each sample a few elements after the one before
        return x.flatten().as_strided(
            x.shape, (min(3, x[0].numel()) % x[0].numel(), *x[0].stride())
        )
    if layout == "sliced" and x.shape[-1] > 3:
        return x[..., ::2]
    return x


def check(case: Case, impl: str) -> None:
    """AssertionError where `impl` does not answer the case as the oracle does."""
    loss_fn = lift_loss if case.is_lift else place_loss
    threads = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        options = {name: x for name, x in case.options.items() if name != "grad_out"}
        if not case.is_finite or case.may_overflow:  # no quiet number
            student = case.student.detach().requires_grad_()
            loss, fit = loss_fn(student, case.teacher, impl=impl, return_fit=True, **options)
            loss.backward()
            if not case.is_finite:
                assert not loss.isfinite(), f"{impl}, {case.text}: gives {loss}"
            if not all(x.isfinite().all() for x in (loss, student.grad, *fit)):
                return
        try:
            assert_matches(loss_fn, case.student, case.teacher, impl=impl, **case.options)
        except AssertionError as error:
            raise AssertionError(f"{impl}, {case.text}: {error}") from None
    finally:
        torch.set_num_threads(threads)


def impls_of(case: Case, impls: tuple[str, ...]) -> list[str]:
    """Those that take the case's dtypes."""
    double = torch.float64 in (case.student.dtype, case.teacher.dtype)
    return [impl for impl in impls if not double or impl in ("torch", "reference")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--impls", nargs="+", default=IMPLS)
    options = parser.parse_args()
    from tqdm import tqdm  # the cases are drawn where it is not installed, too

    wrong, calls = [], dict.fromkeys(options.impls, 0)
    for number in tqdm(range(options.first, options.first + options.cases), unit="case"):
        case = draw(number)
        for impl in impls_of(case, tuple(options.impls)):
            calls[impl] += 1
            try:
                check(case, impl)
            except AssertionError as error:
                wrong.append(number)
                tqdm.write(str(error).split("\n")[0])
    print(f"{options.cases:,} cases; calls: {calls}; wrong: {len(wrong)}", *wrong[:20])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The op as the dispatcher calls it: the contract, refusals, and, on a GPU, its sanitizer.

Synchronisation, graphs and streams are in tests/gpu, for every implementation.
"""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from liftplace import _closed_form, lift_loss, place_loss
from liftplace._contract import LossSum, Options
from liftplace.kernels.cuda import build, op
from liftplace.kernels.cuda.launch import LiftLaunch, place_launch
from tests.kernels.harness import pair

from .harness import SM_80, assert_agrees, emulated, run
from .test_rank import errors


@pytest.mark.parametrize("n, size", [(97, 16), (97, 97), (97, 500), (70_000, 1)])
@pytest.mark.parametrize("with_groups", [True, False])
def test_outputs_are_those_of_the_closed_form(n, size, with_groups, device):
    loss_sum = LossSum(scale=97)
    options = Options(size, fixed_weight=0.5, loss_sum=loss_sum, with_groups=with_groups)
    arguments = (*pair(2, n, device), None, options)
    (loss, actual), (expected_loss, expected) = (
        implementation.forward(*arguments) for implementation in (op, _closed_form)
    )
    for one, other in zip((loss, *actual), (expected_loss, *expected), strict=True):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    assert torch.equal(actual.group, expected.group)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(actual.stats, expected.stats, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [{"threads": 2048}, {"shared": 1 << 20}], ids=str)
def test_a_failed_launch_is_an_error(bad, device, monkeypatch):
    """And the next one runs: the error of one launch is not reported by another.

    More threads than a block may have are an invalid configuration (9), more shared memory an
    invalid value (1). Which of its limits a driver looks at first is not documented: a kernel's own
    bound on threads gives an invalid value, too few registers for them too many resources (701).
    """
    launch = {"chunks": 1, "threads": 32, **bad}
    with monkeypatch.context() as patch:
        patch.setattr(op, "lift_launch", lambda n: LiftLaunch(**launch))
        with pytest.raises(RuntimeError, match=r"liftplace_lift failed: CUDA error (1|9|701), "):
            run(*pair(2, 64, device))
    assert_agrees(*pair(2, 64, device))


def test_shared_memory_is_allowed_once_and_never_less(emulation, monkeypatch):
    """Not for every launch: a host thread would lower what another has just set."""
    before = emulation.emulation_times_limited()
    with emulated(monkeypatch, emulation):
        for n in (9000, 16_000, 9000):  # one kernel, of more shared memory and of less
            assert place_launch(1, n, 16, SM_80).kind == 16
            run(*pair(1, n, "cpu"), 16)
    assert emulation.emulation_times_limited() - before <= 1


@pytest.mark.gpu
def test_host_threads_do_not_lower_each_others_shared_memory():
    inputs = [pair(4, n, "cuda") for n in (9000, 16_000)]
    expected = [run(*tensors, 16).grad for tensors in inputs]

    def train(number):
        grads = [run(*inputs[number], 16).grad for _ in range(500)]
        return all(torch.equal(grad, expected[number]) for grad in grads)

    with ThreadPoolExecutor() as pool:
        assert all(pool.map(train, (0, 1, 0, 1)))


def test_unsupported_reason():
    x = torch.zeros(2, 32)
    assert "float64" in op.unsupported_reason(x.double(), x, 32)
    assert "float64" in op.unsupported_reason(x, x.double(), 32)
    assert "tensors are on cpu" in op.unsupported_reason(x, x, 32)


@pytest.mark.parametrize("loss_fn", [lift_loss, place_loss])
def test_compiles_in_one_graph(loss_fn, device, monkeypatch):
    """Also what asks whether the kernels can run, which looks for files when nothing compiles."""
    if device == "cpu":  # emulated
        monkeypatch.setattr(op, "_arch", lambda device: build.MIN_ARCH)
        monkeypatch.setattr(op, "unsupported_reason", lambda s, *_: op._device_reason(s.device))
        monkeypatch.setattr(build, "is_prebuilt", lambda: True)
    student, teacher = (x.view(2, 3, 10, 10).requires_grad_() for x in pair(6, 100, device))

    def step(student):
        return 2 * loss_fn(student, teacher.detach(), impl="cuda")

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(student)
    expected = step(student)
    assert torch.equal(compiled, expected)
    gradients = (torch.autograd.grad(loss, student)[0] for loss in (compiled, expected))
    assert torch.equal(*gradients)


@pytest.mark.gpu
def test_unsupported_reason_on_a_gpu(monkeypatch):
    x = torch.zeros(2, 32, device="cuda")
    assert op.unsupported_reason(x, x, 32) is None
    assert "longer than" in op.unsupported_reason(x, x, 1 << 31)
    monkeypatch.setattr(build, "unsupported_reason", lambda: "there is no nvcc")
    assert op.unsupported_reason(x, x, 32) == "there is no nvcc, or use impl='triton'"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["cauchy", "half tied", "bfloat16"])
@pytest.mark.parametrize("rows, n", [(256, 4096), (4, 65_536)])
def test_a_hundred_runs_give_the_same_bits(kind, rows, n):
    student, teacher = errors(kind, rows, n, "cuda")
    first = run(student, teacher, 16)
    for _ in range(99):
        for one, other in zip(first, run(student, teacher, 16), strict=True):
            assert torch.equal(one, other)


SANITIZED = """
import torch
from tests.kernels.harness import pair
from tests.kernels.cuda.harness import run
for dtype in (torch.float32, torch.bfloat16):
    for n, size in ((97, 16), (4096, 16), (16_384, 16), (20_000, 16), (17_000, 15_000)):
        run(*pair(2, n, "cuda", dtype), size)
        run(*pair(2, n, "cuda", dtype))
torch.cuda.synchronize()
"""


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer(tool):
    options = ["--tool", tool, "--error-exitcode", "9", "--kernel-regex", "kns=liftplace"]
    command = ["compute-sanitizer", *options, sys.executable, "-c", SANITIZED]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]

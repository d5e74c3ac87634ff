"""python -m benchmarks step: the loss's share of a whole training step.

Small diffusers students, a U-Net on images of 64 x 64 and a DiT on latents of 32 x 32, take an
AdamW step towards a teacher's output that is already there. The step runs eagerly, and on CUDA also
captured whole in a CUDA graph and under `torch.compile(mode="reduce-overhead")`.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from benchmarks import flags, naive, report, results, timing
from benchmarks.environment import environment
from liftplace import place_loss
from liftplace.common.errors import UsageError

COLUMNS = (
    *results.WHERE,
    *"model parameters shape precision loss mode repeats ms_p20 ms_p50 ms_p80".split(),
    *"loss_ms_p50 share_p20 share_p50 share_p80".split(),
)
_RUN = ("device", "threads", "model", "shape", "precision", "loss", "mode")
LOSSES = {"ours": place_loss, "naive": naive.place_loss, "mse": F.mse_loss}
SHAPES = {"unet": (96, 3, 64, 64), "dit": (64, 4, 32, 32)}
CPU_BATCH = 4
_STEPS = 3  # a sample on CUDA: back to back, so that the host may run ahead as it does in training


@dataclass(frozen=True)
class Problem:
    """A student, the arguments of its forward, and what it shall put out."""

    student: nn.Module
    arguments: dict[str, Tensor]
    target: Tensor
    autocast: bool

    def output(self) -> Tensor:
        with torch.autocast(self.target.device.type, torch.bfloat16, enabled=self.autocast):
            return self.student(**self.arguments).sample


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.timed(parser, repeats=20)
    flags.threads(parser)
    precisions = "bfloat16 is autocast (default: both; cpu: float32)"
    batches = "default: unet 96, dit 64; cpu: 4"
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument(
        "--precisions", nargs="+", choices=("float32", "bfloat16"), default=None, help=precisions
    )
    parser.add_argument("--batch_size", type=flags.count, default=None, help=batches)


def main(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("diffusers") is None:
        raise UsageError("the students come from diffusers: run `pip install diffusers`")
    torch.set_num_threads(options.threads)
    where = environment(options.device, options.commit) | {"threads": str(options.threads)}
    path = options.out / f"step_{options.device}.csv"
    precisions = options.precisions or ["float32", "bfloat16"][: 1 + (options.device == "cuda")]
    for model in options.models:
        for precision in precisions:
            rows, skipped = measure(model, precision, where, options)
            results.keep(path, COLUMNS, _RUN, rows, skipped)
    print(f"{report.steps(options.out, options.device)}\n{results.origin(where, path)}")
    return 0


def measure(model: str, precision: str, where: dict[str, str], options) -> tuple[list[dict], dict]:
    """Rows of every loss and mode, timed in turn; and why something is missing from them."""
    torch.compiler.reset()
    batch = options.batch_size or (CPU_BATCH if options.device == "cpu" else SHAPES[model][0])
    shape = (batch, *SHAPES[model][1:])
    contenders, skipped = [], {}
    for name, loss in LOSSES.items():
        for mode, make in _modes(options.device, name).items():
            problem = make_problem(model, shape, options.device, precision == "bfloat16")
            try:
                sample = make(problem, loss)
                sample()
            except (RuntimeError, TorchDynamoException) as error:
                skipped[f"{name}, {mode}"] = results.reason(error)
                continue
            contenders.append(timing.Contender(name, mode, "", sample))
    parameters = sum(p.numel() for p in problem.student.parameters())
    print(f"{model} {shape} {precision}: time", file=sys.stderr)
    samples = timing.interleave(contenders, options.repeats)
    shared = where | {"model": model, "parameters": parameters, "precision": precision}
    shared["shape"] = "x".join(map(str, shape))
    return [
        _row(shared | {"loss": loss, "mode": mode}, of_contender)
        for (loss, mode, _), of_contender in samples.items()
    ], skipped


def make_problem(model: str, shape: tuple[int, ...], device: str, autocast: bool) -> Problem:
    torch.manual_seed(0)
    student = {"unet": _unet, "dit": _dit}[model](shape[1], shape[2]).to(device)
    arguments = {
        "sample" if model == "unet" else "hidden_states": torch.randn(shape, device=device),
        "timestep": torch.randint(1000, shape[:1], device=device),
    }
    if model == "dit":
        arguments["class_labels"] = torch.randint(1000, shape[:1], device=device)
    return Problem(student, arguments, torch.randn(shape, device=device), autocast)


def _unet(channels: int, size: int) -> nn.Module:
    from diffusers import UNet2DModel

    down, up = ["DownBlock2D"] * 4, ["UpBlock2D"] * 4
    down[2], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    blocks = {"down_block_types": down, "up_block_types": up, "layers_per_block": 1}
    blocks |= {"block_out_channels": (16, 32, 48, 64), "norm_num_groups": 8}
    return UNet2DModel(size, channels, channels, **blocks)


def _dit(channels: int, size: int) -> nn.Module:
    from diffusers import DiTTransformer2DModel

    sizes = {"in_channels": channels, "out_channels": channels, "sample_size": size}
    layers = {"num_attention_heads": 6, "attention_head_dim": 32, "num_layers": 6}
    return DiTTransformer2DModel(**sizes, **layers, patch_size=2, norm_num_groups=8)


def _eager(problem: Problem, loss_fn: Callable) -> Callable[[], dict[str, float]]:
    """The output is cut from its graph, so that the loss's backward can be timed by itself."""
    optimizer = torch.optim.AdamW(problem.student.parameters())
    clock, steps = timing.Clock(problem.target.device), _STEPS if problem.target.is_cuda else 1

    def step():
        output = problem.output()
        leaf = output.detach().requires_grad_()
        clock.mark()
        (gradient,) = torch.autograd.grad(loss_fn(leaf, problem.target), leaf)
        clock.mark()
        output.backward(gradient)
        optimizer.step()
        optimizer.zero_grad()

    def sample():
        clock.start()
        for _ in range(steps):
            step()
        first, *marks, last = clock.stop()
        inside = sum(end - start for start, end in zip(marks[::2], marks[1::2], strict=True))
        return {"step": (last - first) / steps, "loss": inside / steps}

    return sample


def _graph(problem: Problem, loss_fn: Callable) -> Callable[[], dict[str, float]]:
    """Forward, loss, backward and optimizer in one CUDA graph."""
    optimizer = torch.optim.AdamW(problem.student.parameters(), capturable=True)

    def step():
        optimizer.zero_grad()
        loss_fn(problem.output(), problem.target).backward()
        optimizer.step()

    graph = timing.capture(step)

    def replay(_kept=step):  # a graph does not own the parameters that it was captured on
        graph.replay()

    return _whole(replay)


def _reduce_overhead(problem: Problem, loss_fn: Callable) -> Callable[[], dict[str, float]]:
    """Forward and loss compiled, with their backward, into CUDA graphs; the optimizer fused."""
    optimizer = torch.optim.AdamW(problem.student.parameters(), fused=True)
    forward = torch.compile(
        lambda: loss_fn(problem.output(), problem.target), mode="reduce-overhead"
    )

    def step():
        torch.compiler.cudagraph_mark_step_begin()
        forward().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):  # compiles, warms up, records
        step()
    return _whole(step)


def _whole(step: Callable[[], None]) -> Callable[[], dict[str, float]]:
    clock = timing.Clock(torch.device("cuda"))

    def sample():
        clock.start()
        for _ in range(_STEPS):
            step()
        first, last = clock.stop()
        return {"step": (last - first) / _STEPS}

    return sample


def _modes(device: str, loss: str) -> dict[str, Callable]:
    """Not captured: the baseline, which reads its weight on the host. Compiled: ours alone, because
    each takes long to compile."""
    modes = {"eager": _eager}
    if device == "cuda" and loss != "naive":
        modes["graph"] = _graph
    if device == "cuda" and loss == "ours":
        modes["reduce-overhead"] = _reduce_overhead
    return modes


def _row(shared: dict, samples: list[dict[str, float]]) -> dict:
    step = np.array([sample["step"] for sample in samples])
    row = dict.fromkeys(COLUMNS, "") | shared | {"repeats": len(samples)}
    row |= results.percentiles("ms", step)
    if "loss" in samples[0]:
        loss = np.array([sample["loss"] for sample in samples])
        row |= {"loss_ms_p50": np.median(loss)} | results.percentiles("share", loss / step)
    return row

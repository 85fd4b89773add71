"""The host's time of an eager step: what it takes to launch one, whatever the GPU takes to run it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from .inputs import make_inputs
from .providers_torch import torch_providers
from .runners import TorchRunner
from .shapes import Shape

STEPS, ROUNDS = 50, 15  # so few steps that the device's queue has room for all


def _least(prepare: Callable[[], object], call: Callable[[], object]) -> float:
    """Milliseconds of a call: the least of some rounds, between which the device is waited for."""
    found = []
    for _ in range(ROUNDS):
        prepare()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(STEPS):
            call()
        found.append((time.perf_counter() - begin) / STEPS * 1000)
        torch.cuda.synchronize()
    return min(found)


def host_times(shape: Shape) -> dict[str, float]:
    """Milliseconds of a step, its forward and its backward, of the loss with grouped negatives."""
    provider = next(each for each in torch_providers() if each.ours and each.full == shape.full)
    runner = TorchRunner(provider, make_inputs(shape, "uniform", "cuda"), None, print)
    losses: list[torch.Tensor] = []

    def forward() -> None:
        losses.append(runner.loss(runner.hidden, runner.table))

    def fill() -> None:
        losses.clear()
        for _ in range(STEPS):
            forward()

    def backward() -> None:
        runner.forget()
        losses.pop().backward()

    for _ in range(3):
        runner.step()
    times = {"step": _least(runner.forget, runner.step), "forward": _least(losses.clear, forward)}
    return times | {"backward": _least(fill, backward)}

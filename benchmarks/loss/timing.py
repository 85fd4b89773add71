"""Timing in turns: bursts of chained steps of every provider, round after round, so that a drifting clock rate meets
all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

BURST_STEPS, BURST_SECONDS = 10, 0.02  # enough for the host to run ahead, so that a burst shows throughput
CHAIN_STEPS, CHAIN_ROUNDS = 200, 5
CHAIN_SECONDS = 16.0  # chains of up to so long are whole, whatever time a provider was given
LEAD_STEPS, LEAD_SECONDS = (
    2,
    0.05,
)  # steps before the clock starts, so that the device is never idle; none where a step is long

Call = Callable[[], Any]


@dataclass
class Timed:
    """One way of running one provider; ``call`` starts a step, ``finish`` waits for what a call returned.

    ``chained`` takes the wall time of many steps, as it can be taken of any framework; otherwise CUDA events take the
    device's.
    """

    provider: str
    timing: str
    call: Call
    finish: Callable[[Any], object]
    chained: bool = False
    ms: list[float] = field(default_factory=list)
    steps: int = 1
    rounds: int = 1
    lead: int = 0

    def burst(self, steps: int) -> float:
        """Seconds a step."""
        out = None
        for _ in range(self.lead):
            out = self.call()
        if self.chained or not torch.cuda.is_available():
            self.finish(out)
            begin = time.perf_counter()
            for _ in range(steps):
                out = self.call()
            self.finish(out)
            return (time.perf_counter() - begin) / steps
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(steps):
            self.call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / steps

    def plan(self, rounds: int, seconds: float) -> None:
        """Set steps and rounds so that all bursts together take about ``seconds``, two bursts at least; chains of up to
        CHAIN_SECONDS have CHAIN_STEPS steps."""
        estimate = min(self.burst(1) for _ in range(2))
        if estimate < LEAD_SECONDS:  # alone, a short step is mostly the wait for its end
            estimate = self.burst(BURST_STEPS)
        self.lead = LEAD_STEPS if estimate < LEAD_SECONDS else 0
        affordable = int(seconds / estimate)  # steps, leading ones included
        if self.chained:  # long chains come before many of them
            whole = CHAIN_STEPS * estimate <= CHAIN_SECONDS
            self.steps = CHAIN_STEPS if whole else min(max(affordable // 2 - self.lead, 1), CHAIN_STEPS)
            most = CHAIN_ROUNDS
        else:
            self.steps = min(
                max(affordable // rounds - self.lead, 1), max(BURST_STEPS, math.ceil(BURST_SECONDS / estimate))
            )
            most = rounds
        self.rounds = min(max(affordable // (self.steps + self.lead), 2), most)


def interleave(
    items: list[Timed], rounds: int, seconds: float, advance: Call, failed: Callable[[Timed, Exception], None]
) -> None:
    """Fill ``ms`` of every item in turns within about ``seconds``; an item that raises is handed to ``failed`` and left
    out."""
    alive: list[Timed] = []

    def attempt(item: Timed, work: Call) -> bool:
        try:
            work()
        except Exception as error:
            failed(item, error)
            return False
        return True

    for item in items:
        if attempt(item, lambda item=item: item.plan(rounds, seconds / len(items))):
            alive.append(item)
    for index in range(rounds):
        for item in list(alive):
            if index < item.rounds and not attempt(
                item, lambda item=item: item.ms.append(item.burst(item.steps) * 1000)
            ):
                alive.remove(item)
        advance()


def median_seconds(call: Call, repeats: int = 10) -> float:
    """Median seconds of a call on the device, after a warm-up."""
    item = Timed("", "", call, lambda _: None)
    item.burst(5)
    return sorted(item.burst(5) for _ in range(repeats))[repeats // 2]


def machine_rates() -> dict[str, float]:
    """What this GPU reaches: TFLOP/s of a bfloat16 8192^3 matrix product, GB/s of a copy, bytes read and written."""
    if not torch.cuda.is_available():
        return {"matmul_tflops": math.nan, "copy_gb_s": math.nan}
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    tflops = 2 * size**3 / median_seconds(lambda: torch.mm(a, b, out=product)) / 1e12
    source = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return {
        "matmul_tflops": tflops,
        "copy_gb_s": 2 * source.numel() / median_seconds(lambda: target.copy_(source)) / 1e9,
    }

"""Everything measured at one shape."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from .gate import GateError, check
from .inputs import Inputs, make_inputs
from .provider import Provider
from .runners import JaxRunner, TorchRunner
from .shapes import Shape
from .timing import Timed, interleave

MEMORY_PART = 4  # a provider may take this part of the device: others keep theirs meanwhile


class DeviceLost(Exception):
    """A provider left the CUDA context unusable."""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


@dataclass
class Bench:
    """What stays the same over the shapes of a run; ``notes`` collects what was left out, and why."""

    providers: list[Provider]
    device: str
    rounds: int
    seconds: float
    common: dict[str, object]
    rates: dict[str, float]
    console: Console

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.gates: dict[tuple[str, int], float | None] = {}
        self.by_name = {provider.name: provider for provider in self.providers}

    def note(self, line: str) -> None:
        self.notes.append(line)
        self.console.print(f"  {line}", style="yellow", markup=False, highlight=False)

    def _left_out(self, provider: Provider, shape: Shape) -> str | None:
        refusal = provider.refuses(shape)
        if refusal or self.device == "cpu":
            return refusal
        limit, needed = torch.cuda.mem_get_info()[1] / MEMORY_PART, provider.least_extra(shape)
        return f"would take {needed / 1e9:.0f} GB, more than a quarter of the device" if needed > limit else None

    def _gate(self, provider: Provider, dim: int) -> float | None:
        """Once for each provider and width; a failure of one of ours ends the run."""
        key = provider.name, dim
        if key not in self.gates:
            self.gates[key] = None
            if provider.ids is not None or provider.reference is not None:
                self.gates[key], line = check(provider, dim, self.device)
                self.console.print(f"  gate: {line}", markup=False, highlight=False)
        return self.gates[key]

    def _usable(self, provider: Provider) -> None:
        """Raise where an error of ``provider`` has left the device unusable for all that follow."""
        try:
            if self.device == "cuda":
                torch.cuda.synchronize()
        except Exception as error:
            raise DeviceLost(
                f"the CUDA context is lost after {provider.name}; run again --without it ({_reason(error)})"
            ) from error

    def measure(self, shape: Shape, targets: str) -> list[dict[str, object]]:
        """The rows of one shape."""
        self.console.print(f"{shape}, {targets} targets", style="bold", markup=False, highlight=False)
        try:
            return self._measure(shape, targets)
        finally:
            _free()

    def _measure(self, shape: Shape, targets: str) -> list[dict[str, object]]:
        where = f"{shape.name}, {targets}"
        inputs = make_inputs(shape, targets, self.device)
        pool = torch.cuda.graph_pool_handle() if self.device == "cuda" else None
        extra: dict[str, int | None] = {}
        items: list[Timed] = []
        runners: list[TorchRunner | JaxRunner] = []  # hold what graphs read
        # PyTorch's cache of memory grows, and JAX cannot reclaim it: JAX's providers are prepared first, beside an
        # empty one
        for provider in sorted(self.providers, key=lambda p: p.framework == "torch"):
            if not provider.belongs_to(shape):
                continue
            if reason := self._left_out(provider, shape):
                self.note(f"{where}: {provider.name} left out: {reason}")
                continue
            try:
                runner, found, extra[provider.name] = self._prepare(provider, inputs, pool, where)
                runners.append(runner)
                items += found
            except GateError:
                raise
            except Exception as error:
                self.note(f"{where}: {provider.name} failed: {_reason(error)}")
                self._usable(provider)
        order = [provider.name for provider in self.providers]
        items.sort(key=lambda item: order.index(item.provider))
        self._time(items, where)
        return [self._row(shape, targets, item, extra[item.provider]) for item in items if item.ms]

    def _prepare(
        self, provider: Provider, inputs: Inputs, pool: object, where: str
    ) -> tuple[TorchRunner | JaxRunner, list[Timed], int | None]:
        self.console.print(f"  {provider.name} ...", style="dim", markup=False, highlight=False)
        self._gate(provider, inputs.shape.dim)
        if self.device == "cuda":
            torch.cuda.empty_cache()  # the two frameworks allocate beside each other
        note: Callable[[str], None] = lambda line: self.note(f"{where}: {line}")  # noqa: E731
        runner = (
            TorchRunner(provider, inputs, pool, note) if provider.framework == "torch" else JaxRunner(provider, inputs)
        )  # fmt: skip
        extra = runner.prepare()
        return runner, runner.timed(), extra

    def _time(self, items: list[Timed], where: str) -> None:
        def failed(item: Timed, error: Exception) -> None:
            self.note(f"{where}: {item.provider}, {item.timing}, failed: {_reason(error)}")
            self._usable(self.by_name[item.provider])

        with Progress(console=self.console, transient=True) as progress:
            task = progress.add_task("  rounds", total=self.rounds)
            interleave(items, self.rounds, self.seconds, lambda: progress.advance(task), failed)
        for item in items:
            if item.ms:
                times = f"({item.rounds} x {item.steps} steps)"
                line = f"  {item.provider:32} {item.timing:14} {np.median(item.ms):10.3f} ms  {times}"
                self.console.print(line, markup=False, highlight=False)

    def _row(self, shape: Shape, targets: str, item: Timed, extra: int | None) -> dict[str, object]:
        low, middle, high = (float(x) for x in np.percentile(item.ms, (10, 50, 90)))
        shape = replace(shape, negatives=self.by_name[item.provider].candidates(shape))
        return {
            "shape": shape.name, "rows": shape.rows, "negatives": shape.negatives, "items": shape.items,
            "dim": shape.dim,
            "targets": targets, "provider": item.provider, "timing": item.timing,
            "ms": middle, "ms_p10": low, "ms_p90": high, "rounds": len(item.ms), "steps": item.steps,
            "extra_bytes": extra, "bytes_per_pair": None if extra is None else extra / shape.pairs,
            **self._work(shape, item.timing, middle), **self.rates,
            "gate_error": self.gates.get((item.provider, shape.dim)), **self.common,
        }  # fmt: skip

    def _work(self, shape: Shape, timing: str, ms: float) -> dict[str, float | None]:
        """Operations in the time of a step, and the step's floors; None of losses, which do other work than ``Shape``
        counts."""
        names = ("tflops", "matmul_fraction", "floor_operations_ms", "floor_bytes_ms")
        if shape.losses:
            return dict.fromkeys(names)
        # the halves of a step do half of its operations each
        tflops = shape.operations / (2 if timing in ("forward", "backward") else 1) / ms / 1e9
        rate = self.rates["matmul_tflops"]
        floors = shape.operations / rate / 1e9, shape.least_bytes / self.rates["copy_gb_s"] / 1e6
        return dict(zip(names, (tflops, tflops / rate, *floors), strict=True))


def _free() -> None:
    """Everything a shape held, compiled programs included: they are of its sizes."""
    import jax

    jax.clear_caches()
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

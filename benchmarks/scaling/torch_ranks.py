"""One rank of PyTorch: its step's time, memory and traffic. A process of its own, as ``torchrun`` would start it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from cce_minus.torch_impl.devices import captured
from torch import Tensor

from .cases import Case
from .collectives import counted, local, noted
from .torch_steps import Step, make_step
from .workers import SILENCE, Tell

CAPTURING = "capturing its step as a CUDA graph"
_WARM_UP = 3


def measure_rank(rank: int, tell: Tell, case: Case, folder: str, captures: bool) -> dict[str, float]:
    """Milliseconds of a step and of one without exchange, medians over rounds, and bytes; ``captures`` it as a CUDA
    graph. Raises RuntimeError where a loss is not finite."""
    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if case.gpus > 1:
        tell("joining the process group")
        store = f"file://{Path(folder).resolve()}/store"
        timeout = timedelta(seconds=SILENCE - 10)  # before the silence is noticed, so that NCCL says what it waits for
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", store, timeout, rank=rank, world_size=case.gpus,
            device_id=device if on_gpu else None,
        )  # fmt: skip
    tell("making tables and model")
    step = make_step(case, rank, device)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    tell("compiling and taking its first step")
    with counted() as traffic:
        step()
    run, free = _ready(step, device, captures, tell)
    tell("timing its step")
    found = {"ms": _median(run, case, device)}
    loss = float(run())
    if on_gpu:
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    if not torch.isfinite(torch.tensor(loss)):
        raise RuntimeError(f"expected a finite loss, got {loss}: a working set without room, or a fault")
    free()
    found |= {"exchange_bytes": traffic.exchange, "dense_bytes": traffic.dense, "ms_without_exchange": found["ms"]}
    if case.gpus > 1:
        tell("noting what its step exchanges")
        with noted() as notes:
            step()
        with local(notes):
            run, free = _ready(step, device, captures, tell)
            tell("timing its step without exchange")
            found["ms_without_exchange"] = _median(run, case, device)
        free()
        tell("leaving the process group")
        dist.barrier()
        dist.destroy_process_group()
    return found


def _ready(step: Step, device: torch.device, captures: bool, tell: Tell) -> tuple[Step, Callable[[], None]]:
    """How to run a step that is warm, as a CUDA graph or as it is, and what frees the graph, as NCCL does not end
    before the graphs that use it."""
    if device.type != "cuda":
        return step, _nothing
    tell("warming up")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    if not captures:
        return step, _nothing
    tell(CAPTURING)
    graph = torch.cuda.CUDAGraph()
    with captured(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    replay()
    torch.cuda.synchronize()
    return replay, graph.reset


def _nothing() -> None:
    pass


def _median(run: Step, case: Case, device: torch.device) -> float:
    """Milliseconds of a step: the median over rounds, which ranks begin together."""
    times: list[float] = []
    for _ in range(case.rounds + 1):
        if case.gpus > 1:
            dist.barrier()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(_milliseconds(run, case.steps, device))
    return statistics.median(times[1:])


def _milliseconds(run: Step, steps: int, device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(steps):
            run()
        return (time.perf_counter() - began) / steps * 1000
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(steps):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / steps

"""What a step of a cell costs on an idle GPU: milliseconds and memory of the loss and of the whole step."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.torch_impl.models import build_model
from torch import Tensor, nn

from .cells import Cell
from .step import Loss, TrainingStep
from .training import epoch_tensors, loss_of, prepared

_REPLAYS = 20  # of a graph between two events
_ROUNDS = 5


def measure_cell(cell: Cell, data: Path, device: torch.device) -> dict[str, object]:
    """Milliseconds of replayed CUDA graphs, medians over rounds on a batch of the data; MiB are peaks.

    ``loss_ms`` and ``loss_mib`` are of the loss alone: drawing, forward and backward to the gradients of hidden states
    and of the item table, as they come from the model, with the casts of mixed precision, above these. ``step_ms`` and
    ``step_mib`` are of a whole training step, with gradients, the optimiser's moments and cuBLAS's workspaces, above
    the model and the batch.
    """
    gc.collect()  # what is left of an earlier cell would be taken for memory in use
    config = cell.config(data, 1)
    split = prepared(cell, data)
    torch.manual_seed(config.seed)
    model = build_model(ModelConfig.from_train(config, split.num_items)).to(device)
    loss = loss_of(cell, config, split)
    inputs, targets = (epoch[0] for epoch in epoch_tensors(config, split, 0, device))
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        fixed = _Fixed(model(inputs), model.item_rows())
    step_ms, step_mib = _whole_step(TrainingStep(model, config, loss), inputs, targets)
    loss_ms, loss_mib = _loss_alone(fixed, loss, targets, bf16=config.precision == "bf16")
    return {
        "loss_ms": loss_ms,
        "loss_mib": loss_mib,
        "step_ms": step_ms,
        "step_mib": step_mib,
    }


class _Fixed(nn.Module):
    """A model whose hidden states and item rows are given: what is left of its training step is the loss."""

    def __init__(self, hidden: Tensor, rows: Tensor) -> None:
        super().__init__()
        self.hidden = nn.Parameter(hidden.detach().clone())
        self.rows = nn.Parameter(rows.detach().clone())

    def item_rows(self) -> Tensor:
        return self.rows

    def forward(self, inputs: Tensor, rows: Tensor) -> Tensor:
        return self.hidden


def _whole_step(step: TrainingStep, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    # A stream's first matrix product takes cuBLAS's workspace for good: without those of earlier cells, every cell
    # counts its own.
    torch._C._cuda_clearCublasWorkspaces()  # pyright: ignore[reportPrivateUsage]
    held = torch.cuda.memory_allocated(step.device)
    torch.cuda.reset_peak_memory_stats(step.device)
    step(inputs, targets, 0)
    mib = (torch.cuda.max_memory_allocated(step.device) - held) / 2**20
    return _milliseconds(step.replay), mib


def _loss_alone(fixed: _Fixed, loss: Loss, targets: Tensor, *, bf16: bool) -> tuple[float, float]:
    seed = torch.zeros(1, dtype=torch.int64, device=targets.device)

    def once() -> None:
        fixed.zero_grad(set_to_none=True)
        seed.add_(1)
        with torch.autocast(targets.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            value = loss(fixed, targets, targets, seed)  # pyright: ignore[reportArgumentType]
        value.backward()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        once()
        fixed.zero_grad(set_to_none=True)
        held = torch.cuda.memory_allocated(targets.device)
        torch.cuda.reset_peak_memory_stats(targets.device)
        once()
        mib = (torch.cuda.max_memory_allocated(targets.device) - held) / 2**20
        fixed.zero_grad(set_to_none=True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    return _milliseconds(graph.replay), mib


def _milliseconds(call: Callable[[], None]) -> float:
    """The median over rounds of the mean time of calls that follow each other, on the GPU's clock."""
    rounds: list[float] = []
    for _ in range(_ROUNDS + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(_REPLAYS):
            call()
        end.record()
        torch.cuda.synchronize()
        rounds.append(begin.elapsed_time(end) / _REPLAYS)
    return statistics.median(rounds[1:])

"""What a step of a cell costs on an idle GPU: milliseconds and memory of the loss and of the whole step."""

from __future__ import annotations

import functools
import gc
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from cce_minus.recsys import epoch_batches
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.steps import Steps
from cce_minus.torch_impl.devices import no_cast_cache
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.training.launcher import fabric_of
from cce_minus.torch_impl.training.objective import objective_of
from cce_minus.torch_impl.training.steps import Autocast, TrainingSteps
from torch import Tensor, nn

from .cells import Cell
from .training import loss_of, prepared

_REPLAYS = 20  # of a graph between two events
_ROUNDS = 5


def measure_cell(cell: Cell, data: Path, device: torch.device) -> dict[str, object]:
    """Milliseconds of replayed CUDA graphs, medians over rounds on a batch of the data; MiB are peaks.

    ``loss_ms`` and ``loss_mib`` are of the loss alone: drawing, forward and backward to the gradients of hidden states
    and of the item table, as they come from the model, with the casts of mixed precision, above these. ``step_ms`` and
    ``step_mib`` are of a whole training step, with gradients, the optimiser's moments and cuBLAS's workspaces, above
    the model.
    """
    gc.collect()  # what is left of an earlier cell would be taken for memory in use
    config = cell.config(data, 1)
    split = prepared(cell, data)
    torch.manual_seed(config.seed)
    model = build_model(ModelConfig.from_train(config, split.num_items)).to(device)
    loss = loss_of(cell)
    objective, autocast = objective_of(config, split), fabric_of(config, device).autocast
    batch = next(epoch_batches(config, split, 0))
    inputs, targets = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
    with torch.no_grad(), autocast():
        fixed = _Fixed(model(inputs), model.item_rows())
    begin = functools.partial(TrainingSteps, model, config, objective, autocast, loss=loss)
    step_ms, step_mib = _whole_step(begin, Steps.of_batch(batch, 0, config), device)
    loss_alone = functools.partial(loss, fixed, targets, targets, objective=objective, frequencies=None)
    loss_ms, loss_mib = _loss_alone(fixed, loss_alone, autocast)
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


def _whole_step(begin: Callable[[], TrainingSteps], batch: Steps, device: torch.device) -> tuple[float, float]:
    # A stream's first matrix product takes cuBLAS's workspace for good: without those of earlier cells, every cell
    # counts its own.
    torch._C._cuda_clearCublasWorkspaces()  # pyright: ignore[reportPrivateUsage]
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    steps = begin()
    steps(batch)
    mib = (torch.cuda.max_memory_allocated(device) - held) / 2**20
    return _milliseconds(steps.replay), mib


def _loss_alone(fixed: _Fixed, loss: Callable[[Tensor], Tensor], autocast: Autocast) -> tuple[float, float]:
    device = fixed.rows.device
    seed = torch.zeros(1, dtype=torch.int64, device=device)

    def once() -> None:
        fixed.zero_grad(set_to_none=True)
        seed.add_(1)
        with autocast():
            value = loss(seed)
        value.backward()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with no_cast_cache():
        with torch.cuda.stream(stream):
            once()
            fixed.zero_grad(set_to_none=True)
            held = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            once()
            mib = (torch.cuda.max_memory_allocated(device) - held) / 2**20
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

"""The optimizers of a run: ``torch.optim``'s, with the learning rate on the parameters' device, where a CUDA graph
reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import fold_seed
from ...recsys import TrainConfig
from ...recsys.run.item_optimizer import item_rate_share
from ...recsys.run.optimizer_choices import BETAS, EPS, SMOOTHING
from ..models.sequence_model import SequenceModel
from ..ranks import Ranks
from ..tables.item_table import ItemTable
from ..tables.optimizers import LazyAdam, PartialRowWiseAdam, RowOptimizer, RowWiseAdagrad

ROW_OPTIMIZERS: dict[str, type[RowOptimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "partial_rowwise_adam": PartialRowWiseAdam,
    "lazy_adam": LazyAdam,
}


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Returns ``config.optimizer`` over ``parameters``, with its state in place and a learning rate of 0.

    ``recsys.run.optimizer_choices`` has its numbers. Decay acts on every parameter.
    """
    parameters = list(parameters)
    on_gpu = parameters[0].is_cuda
    rate = torch.zeros((), device=parameters[0].device) if on_gpu else 0.0
    decay = config.weight_decay
    # fused: one pass over parameters, gradients and moments instead of a dozen, as the table of a large catalog is most
    # of the step
    if config.optimizer in ("adamw", "adam"):
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(parameters, lr=rate, betas=BETAS, eps=EPS, weight_decay=decay, fused=on_gpu, capturable=on_gpu)
    elif config.optimizer == "adamax":
        optimizer = torch.optim.Adamax(parameters, lr=rate, betas=BETAS, eps=EPS, weight_decay=decay, capturable=on_gpu)
    elif config.optimizer == "rmsprop":
        optimizer = torch.optim.RMSprop(
            parameters, lr=rate, alpha=SMOOTHING, eps=EPS, weight_decay=decay, capturable=on_gpu
        )
    else:
        assert config.optimizer == "sgd", config.optimizer
        optimizer = torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay, fused=on_gpu)
    _make_state(optimizer, parameters)
    return optimizer


@torch.no_grad()
def _make_state(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """A step without gradients at a rate of 0, which leaves the parameters and makes the state; all of it is zeros
    then. Inside a graph it would be made anew at each replay."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()


class TableOptimizer:
    """The optimizer of an item table by a row ``rule``, on the device: what a step touches moves, and nothing else."""

    def __init__(self, model: SequenceModel, rule: str, config: TrainConfig) -> None:
        weight, shard = model.item_table, model.shard
        self.table, self._share = ItemTable.of(weight, host=config.table_on == "host"), item_rate_share(config)
        betas: dict[str, Any] = {} if rule == "rowwise_adagrad" else {"betas": BETAS}
        self._rate = torch.zeros(1, device=weight.device)
        self.optimizer = ROW_OPTIMIZERS[rule](
            [self.table],
            lr=self._rate,
            eps=EPS,
            weight_decay=config.weight_decay,
            seed=config.seed if shard is None else fold_seed(config.seed, shard.index),
            impl=config.impl,
            **betas,
        )

    @property
    def state(self) -> dict[str, Tensor]:
        """What it keeps of the table, by name."""
        return self.optimizer.state[self.table.weight]

    def gradients(self) -> list[Tensor]:
        """The rows that were read, with their gradients."""
        return [touched.values for touched in self.table.touched]

    @torch.no_grad()
    def step(self, rate: Tensor) -> None:
        """Moves the rows that were read at ``rate`` (1,), the other parameters'."""
        torch.mul(rate, self._share, out=self._rate)
        self.optimizer.step()

    @torch.no_grad()
    def warm_up(self) -> None:
        """Runs what `step` does and moves nothing, so that all is compiled; the rows that were read are dropped."""
        before = self.state["step"].clone()
        for touched in self.table.touched:
            touched.rows.count.zero_()
        self.step(self._rate)
        self.state["step"].copy_(before)


def clip_gradients(dense: list[nn.Parameter], rows: list[Tensor], most: float, ranks: Ranks | None) -> None:
    """Scales the gradients of ``dense`` parameters and ``rows`` down to a norm of at most ``most`` together; with
    ``ranks`` the rows are those of this one's part of the items, while the dense gradients are the same on all."""
    if ranks is None:
        nn.utils.clip_grad_norm_([*dense, *rows], most)
        return
    of_dense, of_rows = (
        nn.utils.get_total_norm([each.grad for each in some if each.grad is not None]) ** 2 for some in (dense, rows)
    )
    nn.utils.clip_grads_with_norm_([*dense, *rows], most, (of_dense + ranks.sum(of_rows)).sqrt())


def set_rate(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """Takes the learning rate from ``rate`` (1,), on a GPU without waiting for it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate[0])
        else:
            group["lr"] = float(rate)

"""The optimizers of a run: ``torch.optim``'s, with the learning rate on the parameters' device, where a CUDA graph
reads it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...recsys import TrainConfig
from ...recsys.run.optimizer_choices import BETAS, EPS, SMOOTHING


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


def set_rate(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """Takes the learning rate from ``rate`` (1,), on a GPU without waiting for it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate[0])
        else:
            group["lr"] = float(rate)

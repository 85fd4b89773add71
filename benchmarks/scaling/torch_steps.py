"""PyTorch's steps: SASRec's training on a shard of a catalog, and full cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.torch_impl import (
    CatalogShard,
    ItemTable,
    RowWiseAdagrad,
    UniformNegatives,
    input_rows,
    linear_cross_entropy,
    sampled_linear_cross_entropy,
    working_set,
)
from cce_minus.torch_impl.models.sasrec import SASRec
from torch import Tensor, nn

from .batches import targets_and_inputs
from .cases import WEAK, Case

Step = Callable[[], Tensor]
"""Takes a step and returns its loss ()."""

_RATE = 1e-4


def make_step(case: Case, rank: int, device: torch.device) -> Step:
    """A step of this rank's rows, in which all ranks take part; of one rank, the plain calls."""
    catalog = CatalogShard(case.items) if case.gpus > 1 else None
    make = _training_step if case.kind == WEAK else _loss_step
    return make(case, rank, device, catalog)


class _Embedded(SASRec):
    """SASRec whose inputs come embedded: ``rows`` (B, L, D), zeros of padding, in place of the item table's."""

    def embed(self, inputs: Tensor, rows: Tensor) -> Tensor:
        return rows.float() * math.sqrt(self.config.dim)


def _training_step(case: Case, rank: int, device: torch.device, catalog: CatalogShard | None) -> Step:
    target, inputs = (torch.from_numpy(ids).to(device) for ids in targets_and_inputs(case, rank))
    config = ModelConfig(1, max_length=case.length, dim=case.dim, num_heads=case.heads)  # its table is beside it
    torch.manual_seed(0)
    with device:
        model = (SASRec if catalog is None else _Embedded)(config)
    torch.manual_seed(rank)  # of rows and of dropout
    table = ItemTable(case.items_of_each, case.dim, dtype=getattr(torch, case.table_dtype), device=device)
    dense = [parameter for name, parameter in model.named_parameters() if name != "item_table"]
    gradients = _one_buffer(dense)
    optimizer = torch.optim.AdamW(dense, lr=_RATE, fused=True, capturable=device.type == "cuda")
    of_table = RowWiseAdagrad([table], lr=_RATE)
    sampler, seed = UniformNegatives(*case.samples), torch.zeros(1, dtype=torch.int64, device=device)

    def step() -> Tensor:
        seed.add_(1)
        chosen = working_set(sampler, target, num_items=case.items, seed=seed, inputs=inputs, catalog=catalog)
        rows = table(chosen)
        with torch.autocast(device.type, torch.bfloat16):
            if catalog is None:
                assert chosen.inputs is not None
                hidden = model(chosen.inputs, rows)
            else:
                hidden = model(inputs, input_rows(rows, chosen, catalog=catalog, dtype=torch.bfloat16))
            hidden = hidden.view(-1, case.dim)
            loss = sampled_linear_cross_entropy(hidden, rows, chosen.target, chosen, catalog=catalog)
        loss.backward()
        summing = None if catalog is None else dist.all_reduce(gradients, async_op=True)
        of_table.step()
        if summing is not None:  # local copies in its place wait for nothing
            summing.wait()
        if catalog is not None:
            gradients.div_(case.gpus)
        optimizer.step()
        gradients.zero_()
        return loss.detach()

    return step


def _one_buffer(parameters: list[nn.Parameter]) -> Tensor:
    """A flat buffer that the parameters' gradients are views of, so that one collective sums them."""
    buffer = torch.zeros(sum(each.numel() for each in parameters), device=parameters[0].device)
    for parameter, part in zip(parameters, buffer.split([each.numel() for each in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    return buffer


def _loss_step(case: Case, rank: int, device: torch.device, catalog: CatalogShard | None) -> Step:
    target = torch.from_numpy(targets_and_inputs(case, rank)[0]).to(device)
    torch.manual_seed(rank)
    dtype = getattr(torch, case.table_dtype)
    hidden = torch.randn(case.positions, case.dim, device=device, dtype=dtype).requires_grad_()
    table = torch.empty(case.items_of_each, case.dim, device=device, dtype=dtype).normal_(0, case.dim**-0.5)
    table.requires_grad_()

    def step() -> Tensor:
        hidden.grad = table.grad = None
        loss = linear_cross_entropy(hidden, table, target, catalog=catalog)
        loss.backward()
        return loss.detach()

    return step

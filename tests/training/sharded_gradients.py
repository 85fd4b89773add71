"""Run by torchrun as one of several ranks that share the item table: gradients against differences of the losses."""

from __future__ import annotations

import contextlib
import os
import sys

import torch
from cce_minus.recsys import TrainConfig, prepare_data
from cce_minus.recsys.run.experiment import longest_batch
from cce_minus.recsys.run.item_optimizer import item_rule
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.steps import Steps
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.ranks import Ranks, joined
from cce_minus.torch_impl.training.objective import objective_of
from cce_minus.torch_impl.training.optimizer import clip_gradients
from cce_minus.torch_impl.training.steps import TrainingSteps

SEED, MOVE = 7, 2e-2


def check(config: TrainConfig, ranks: Ranks) -> None:
    split = prepare_data(config)[1]
    torch.manual_seed(ranks.index)
    model = build_model(ModelConfig.from_train(config, split.num_items), shard=ranks.shard(split.num_items))
    with torch.no_grad():
        model.item_table.mul_(20)  # so that scores differ
    ranks.take_from_first(p.detach() for name, p in model.named_parameters() if name != "item_table")
    rule = item_rule(config, split.num_items)
    objective = objective_of(config, split)
    steps = TrainingSteps(model, config, objective, contextlib.nullcontext, item_rule=rule, ranks=ranks)
    batch = Steps.of_batch(longest_batch(config, split), 0, config).of_rank(ranks.index, ranks.number)
    assert batch.inputs is not None
    assert batch.targets is not None
    inputs, targets = (torch.from_numpy(ids[0, 0]) for ids in (batch.inputs, batch.targets))
    items = steps.items
    assert items is not None

    def loss() -> torch.Tensor:
        return steps._weight(targets) * steps.loss_of(inputs, targets, SEED, None)

    loss().backward()
    (touched,) = items.table.touched
    rows = torch.zeros_like(model.item_table)
    count = int(touched.rows.count)
    assert touched.values.grad is not None
    rows[touched.rows.ids[:count].long()] = touched.values.grad[:count]
    dense = [parameter for name, parameter in model.named_parameters() if name != "item_table"]
    ranks.add_up(parameter.grad for parameter in dense if parameter.grad is not None)
    gradients = [parameter.grad.clone() for parameter in dense if parameter.grad is not None]
    with torch.no_grad():
        for of_rows in (True, False):
            torch.manual_seed(
                1 + ranks.index if of_rows else 0
            )  # every rank moves rows of its own, and the same others
            moved = [model.item_table.detach()] if of_rows else [parameter.detach() for parameter in dense]
            ways = [torch.randn_like(each) * each.std().clamp(min=1e-3) for each in moved]
            known = sum((way * each).sum() for way, each in zip(ways, [rows] if of_rows else gradients, strict=True))
            assert isinstance(known, torch.Tensor)
            losses = []
            for sign in (1, -2):
                for each, way in zip(moved, ways, strict=True):
                    each.add_(way, alpha=sign * MOVE)
                losses.append(ranks.sum(loss()))
            for each, way in zip(moved, ways, strict=True):
                each.add_(way, alpha=MOVE)
            expected = (losses[0] - losses[1]) / (2 * MOVE)
            torch.testing.assert_close(ranks.sum(known) if of_rows else known, expected, rtol=0.02, atol=2e-4)
            assert expected.abs() > 1e-3
    norm = torch.stack([*(g.square().sum() for g in gradients), ranks.sum(rows.square().sum())]).sum().sqrt()
    clip_gradients(dense, items.gradients(), 0.01, ranks)
    for gradient, parameter in zip(gradients, dense, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * (0.01 / norm), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(touched.values.grad[:count], rows[touched.rows.ids[:count].long()] * (0.01 / norm))


if __name__ == "__main__":
    options = TrainConfig.from_json(sys.argv[1])
    with joined(options) as of_all:
        check(options, of_all)
    sys.stdout.flush()
    os._exit(0)  # gloo's threads, which torch._dynamo keeps, at times abort a process that is being torn down

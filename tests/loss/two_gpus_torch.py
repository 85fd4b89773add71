"""Run by torch.distributed.run as two processes of a GPU each: under DDP, gradients are the mean of what each rank's
own rows give alone."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from cce_minus.torch_impl import UniformNegatives, fold_seed, sampled_linear_cross_entropy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

ROWS, ITEMS, D, SEED = 256, 3000, 64, 7


class Model(nn.Module):
    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, hidden: Tensor, target: Tensor, seed: int) -> Tensor:
        return sampled_linear_cross_entropy(hidden, self.table, target, UniformNegatives(128), seed=seed)


def main() -> None:
    rank = int(os.environ["RANK"])
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(ITEMS, D, generator=generator).to(device)
    hidden = torch.randn(2, ROWS, D, generator=generator).to(device)
    target = torch.randint(ITEMS, (2, ROWS), generator=generator).to(device)
    model = Model(table.clone())
    parallel = DistributedDataParallel(model, device_ids=[rank])  # its hooks live as long as it does
    parallel(hidden[rank], target[rank], fold_seed(SEED, rank)).backward()
    grads = []
    for each in range(2):
        alone = Model(table.clone())
        alone(hidden[each], target[each], fold_seed(SEED, each)).backward()
        grads.append(alone.table.grad)
    torch.testing.assert_close(model.table.grad, (grads[0] + grads[1]) / 2)
    dist.destroy_process_group()
    print("passed")


if __name__ == "__main__":
    main()

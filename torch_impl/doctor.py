"""What PyTorch says of this machine, and a step of its loss, for the command ``doctor``."""

from __future__ import annotations

import time

import torch

from ..kernels import UniformNegatives, negative_ids
from ..recsys.cli.checked_step import GROUP, ITEMS, NEGATIVES, ROWS, SEED, Done, Inputs, Results, inputs, reference
from ..recsys.cli.framework_facts import Framework
from .loss.cross_entropy import sampled_linear_cross_entropy


def facts() -> Framework:
    """Which GPU's kernels this PyTorch is built for, and whether it finds one."""
    return Framework(
        name="torch",
        cuda=torch.version.cuda,
        rocm=torch.version.hip,
        has_gpu=torch.cuda.is_available(),
        architectures=tuple(torch.cuda.get_arch_list()),
    )


def expected(given: Inputs) -> Results:
    """What `step` should find, in float64."""
    ids = negative_ids(UniformNegatives(NEGATIVES, GROUP), num_rows=ROWS, num_items=ITEMS, seed=SEED)
    return reference(given, ids)


def step() -> Done:
    """Loss and gradients of the inputs, twice, on a GPU where there is one: by the kernels there, else in plain
    PyTorch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hidden, table, target = (torch.from_numpy(each).to(device) for each in inputs())

    def once() -> tuple[Results, float]:
        began = time.perf_counter()
        e, c = hidden.clone().requires_grad_(), table.clone().requires_grad_()
        loss = sampled_linear_cross_entropy(e, c, target, UniformNegatives(NEGATIVES, GROUP), seed=SEED)
        of_e, of_c = torch.autograd.grad(loss, (e, c))
        found = Results(*(each.detach().cpu().numpy() for each in (loss, of_e, of_c)))
        return found, time.perf_counter() - began

    (results, first), (_, second) = once(), once()
    place = f"kernels on {torch.cuda.get_device_name()}" if device.type == "cuda" else "plain PyTorch on the CPU"
    return Done(place, results, first, second)

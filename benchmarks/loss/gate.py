"""Right before fast: every provider's loss and gradients at a small size, against float64 or plain code."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .inputs import Inputs, make_inputs
from .provider import Provider
from .runners import jax_arrays, to_jax, torch_arrays
from .shapes import Shape

ROWS, NEGATIVES, ITEMS, SEED = 512, 256, 4096, 11

# Relative L2 errors. Ours: the loss is a float32 number; a plain implementation's bfloat16 gradients miss by less than
# 2^-9, of which the tests allow twice, plus 2^-8. Others round logits or sums to half precision, or drop small
# gradients.
LIMITS = {
    True: {"loss": 1e-4, "dhidden": 2.0**-7, "dtable": 2.0**-7},
    False: {"loss": 1e-2, "dhidden": 0.1, "dtable": 0.1},
}


class GateError(Exception):
    """A provider of this project is wrong; nothing is measured."""


def check(provider: Provider, dim: int, device: str) -> tuple[float, str]:
    """The largest relative L2 error of loss and gradients at width ``dim``, and a line that says all three.

    Raises GateError where one of ours is beyond its limit; a peer's line says so.
    """
    shape = Shape("gate", ROWS, ITEMS if provider.full else NEGATIVES, ITEMS, dim)
    inputs = make_inputs(shape, "uniform", device)
    inputs = Inputs(shape, _as(provider, inputs.hidden), _as(provider, inputs.table), inputs.target)
    got, want = _run(provider, inputs), _expected(provider, inputs, device)
    errors = {
        name: float((ours.double() - truth).norm() / truth.norm())
        for name, ours, truth in zip(("loss", "dhidden", "dtable"), got, want, strict=True)
    }
    limits = LIMITS[provider.ours]
    wrong = [name for name, error in errors.items() if not error <= limits[name]]  # a NaN is wrong
    line = f"{provider.name}, D={dim}: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    if wrong:
        line += f"; beyond {', '.join(f'{name} {limits[name]:.1e}' for name in wrong)}"
        if provider.ours:
            raise GateError(line)
    return max(errors.values()), line


def _run(provider: Provider, inputs: Inputs) -> tuple[Tensor, ...]:
    return (_run_torch if provider.framework == "torch" else _run_jax)(provider, inputs)


def _expected(provider: Provider, inputs: Inputs, device: str) -> tuple[Tensor, ...]:
    if provider.reference is not None:
        return _run(replace(provider, loss=provider.reference), inputs)
    assert provider.ids is not None
    ids = provider.ids(inputs.shape, SEED, device)
    return _truth(inputs, None if ids is None else torch.tensor(ids, dtype=torch.int64, device=device))


def _as(provider: Provider, tensor: Tensor) -> Tensor:
    return tensor.to(getattr(torch, provider.dtype))


def _run_torch(provider: Provider, inputs: Inputs) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in (inputs.hidden, inputs.table)]
    arrays = torch_arrays(provider, inputs.shape, inputs.hidden.device)
    loss = provider.loss(*leaves, inputs.target, inputs.shape.negatives, SEED, **arrays)
    return loss.detach(), *torch.autograd.grad(loss, leaves)


def _run_jax(provider: Provider, inputs: Inputs) -> tuple[Tensor, ...]:
    import jax

    def loss(hidden, table, target, arrays):
        return provider.loss(hidden, table, target, inputs.shape.negatives, SEED, **arrays)

    arrays = jax_arrays(provider, inputs.shape)
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(*to_jax(inputs), arrays)
    return tuple(
        torch.tensor(jax.device_get(x.astype("float32")), device=inputs.hidden.device) for x in (value, *gradients)
    )


def _truth(inputs: Inputs, ids: Tensor | None) -> tuple[Tensor, ...]:
    """The loss and its gradients in float64; ``ids`` (N, K), or None for every item."""
    hidden, table = leaves = [x.detach().double().requires_grad_() for x in (inputs.hidden, inputs.table)]
    if ids is None:
        loss = torch.nn.functional.cross_entropy(hidden @ table.T, inputs.target)
    else:
        hits = ids == inputs.target[:, None]
        correction = math.log(len(table) - 1) - (~hits).sum(1, keepdim=True).double().log()
        negative = (torch.einsum("nd,nkd->nk", hidden, table[ids]) + correction).masked_fill(hits, -math.inf)
        positive = (hidden * table[inputs.target]).sum(1, keepdim=True)
        loss = (torch.cat([positive, negative], 1).logsumexp(1) - positive[:, 0]).mean()
    return loss.detach(), *torch.autograd.grad(loss, leaves)

"""Collectives of the ranks that a catalog is sharded over, with their derivatives: every sum is in the order of ranks,
so that two runs agree bit for bit, and nothing waits for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from .rows import refuse_second_derivatives

if TYPE_CHECKING:  # which torch may be built without
    from torch.distributed import ProcessGroup

Group: TypeAlias = "ProcessGroup | None"  # None: the default group


# its name from torch 2.13 on, which warns of the other
_all_gather: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)


def all_gather(tensor: Tensor, group: Group) -> Tensor:
    """(P, ...) the tensors of all ranks, which have one shape."""
    size = dist.get_world_size(group)
    # as the bytes they are: gloo does not know every dtype
    own = tensor.contiguous().reshape(-1).view(torch.uint8)
    out = torch.empty(size * own.numel(), dtype=torch.uint8, device=tensor.device)
    _all_gather(out, own, group=group)
    return out.view(tensor.dtype).view(size, *tensor.shape)


def all_to_all(parts: Tensor, group: Group) -> Tensor:
    """(P, ...) what every rank has for this one, of what each has for all; contiguous."""
    sent = parts.contiguous()
    out = torch.empty_like(sent)
    dist.all_to_all_single(out.view(-1).view(torch.uint8), sent.view(-1).view(torch.uint8), group=group)
    return out


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, of: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.view_as(gradient)

    backward = staticmethod(refuse_second_derivatives)  # type: ignore[assignment]


def once(gradient: Tensor, of: Tensor) -> Tensor:
    """A gradient, which must not be differentiated as far as it follows from ``of``."""
    return _Once.apply(gradient, of) if torch.is_grad_enabled() else gradient  # type: ignore[return-value]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:  # type: ignore[override]
        ctx.group = group
        return all_gather(tensor, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        # a reduce-scatter, whose order of summing is the library's own business, taken apart
        return once(all_to_all(grad, ctx.group).sum(0, dtype=torch.float32).to(grad.dtype), grad), None


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: Group) -> Tensor:  # type: ignore[override]
        ctx.group = group
        return all_to_all(parts, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return once(all_to_all(grad, ctx.group), grad), None


def gathered(tensor: Tensor, group: Group) -> Tensor:
    """``all_gather``, whose gradient is the sum of what all ranks have for this one's tensor, in fp32."""
    return _Gathered.apply(tensor, group)  # type: ignore[return-value]


def exchanged(parts: Tensor, group: Group) -> Tensor:
    """``all_to_all``, whose gradient goes back the way it came."""
    return _Exchanged.apply(parts, group)  # type: ignore[return-value]

"""PyTorch's collectives of a step, counted, noted, or replaced by local copies of what they gave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from cce_minus.torch_impl.loss import exchange
from torch import Tensor

Collective = Callable[..., Any]


@dataclass
class Traffic:
    """Bytes that a rank sends to the others: of the sharded catalog's exchange, and of the all-reduce of dense
    gradients, as a ring sends them."""

    exchange: float = 0.0
    dense: float = 0.0


@contextlib.contextmanager
def counted() -> Iterator[Traffic]:
    """Counts what is called inside."""
    traffic = Traffic()

    def counting(call: Collective, name: str) -> Collective:
        def wrapped(*tensors: Tensor, **options: Any) -> Any:
            others = dist.get_world_size(options.get("group")) - 1
            sent = tensors[-1].numel() * tensors[-1].element_size()  # the last one is what is given
            if name == "all_gather":
                traffic.exchange += sent * others
            elif name == "all_to_all":
                traffic.exchange += sent * others / (others + 1)
            else:
                traffic.dense += 2 * sent * others / (others + 1)
            return call(*tensors, **options)

        return wrapped

    with _replaced(counting):
        yield traffic


@dataclass
class Noted:
    """What the collectives of a step gave, in the order of its calls."""

    results: list[Tensor] = field(default_factory=list)


@contextlib.contextmanager
def noted() -> Iterator[Noted]:
    """Keeps what the collectives of one step, called inside, give."""
    notes = Noted()

    def keeping(call: Collective, name: str) -> Collective:
        def wrapped(*tensors: Tensor, **options: Any) -> Any:
            result = call(*tensors, **options)
            if options.get("async_op"):
                result.wait()
            notes.results.append(tensors[0].clone())  # the first one is what is written
            return result

        return wrapped

    with _replaced(keeping):
        yield notes


@contextlib.contextmanager
def local(notes: Noted) -> Iterator[None]:
    """Has every step inside copy what was noted in place of exchanging it: the same sizes and the same items, so that
    all that is computed on them is as much as in the noted step."""
    place = 0

    def copying(_: Collective, name: str) -> Collective:
        def wrapped(out: Tensor, *__: Tensor, **___: Any) -> None:
            nonlocal place
            out.copy_(notes.results[place % len(notes.results)])
            place += 1

        return wrapped

    with _replaced(copying):
        yield


@contextlib.contextmanager
def _replaced(by: Callable[[Collective, str], Collective]) -> Iterator[None]:
    held = exchange._all_gather, dist.all_to_all_single, dist.all_reduce
    exchange._all_gather = by(held[0], "all_gather")
    dist.all_to_all_single = by(held[1], "all_to_all")
    dist.all_reduce = by(held[2], "all_reduce")
    try:
        yield
    finally:
        exchange._all_gather, dist.all_to_all_single, dist.all_reduce = held

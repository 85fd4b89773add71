"""What goes into the loss's operators, tensors and options by name, and the operators' schemas that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_type_hints

from torch import Tensor

from ...kernels.plan.problem import Choices


class Operands(NamedTuple):
    """One call's tensors on N flat rows, all contiguous."""

    input: Tensor  # (N, D)
    weight: Tensor  # (V, D)
    target: Tensor  # (N,)
    seed: Tensor  # (2,) int32 words (low, high)
    scale: Tensor  # (1,) fp32
    bias: Tensor | None = None  # (V,)
    ids: Tensor | None = None  # (K,), (N, K) or with a group_size above 1 (groups, K)
    log_weight: Tensor | None = None  # (V,) fp32, -log(V q) of each item's draw probability q
    slot_ends: Tensor | None = None  # (V,) int32 of each part of the groups' lists that is drawn by slots
    users: Tensor | None = None  # (N,)
    history_offsets: Tensor | None = None  # (users + 1,)
    history_items: Tensor | None = None  # (known items,)
    positions: Tensor | None = None  # (N,) int32 of rows' targets among a working set's, whose ``ids`` are (D + T,)
    row_ids: Tensor | None = None  # (T,) int32, what a working set's rows are in the catalog, beside a history
    history_weight: Tensor | None = None  # (V,) ``log_weight`` of the catalog, beside these


class Options(NamedTuple):
    """A call's candidates, by the sampler's text or else as ids that so many rows share, and its ``Choices``.

    ``catalog``: the items that are drawn from, where the table is the rows of a working set; else 0.
    """

    sampler: str
    catalog: int
    ids_group: int
    impl: str
    softcap: float | None
    remove_accidental_hits: bool
    ignore_index: int
    scale_grad: bool
    positive_weight: float | None
    correction: str
    is_shard: bool

    @property
    def choices(self) -> Choices:
        return Choices(*self[4:])  # type: ignore[arg-type]


class Saved(NamedTuple):
    """What the forward keeps for the backward, and the upstream gradients."""

    loss: Tensor
    peak: Tensor
    shift: Tensor
    average_dot: Tensor
    average: Tensor
    tables: Tensor
    grad_loss: Tensor
    grad_lse: Tensor | None


_SCHEMA_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "SymInt",
    float | None: "float?",
    bool: "bool",
    str: "str",
}


def schema(results: int, *arguments: type) -> str:
    """The operator schema of NamedTuples' fields, in order, with as many tensors as results.

    Names that came before, as those of operands whose gradients are wanted, begin with their tuple's.
    """
    taken: set[str] = set()

    def named(owner: type, name: str) -> str:
        name = f"{owner.__name__.lower()}_{name}" if name in taken else name
        taken.add(name)
        return name

    fields = [
        f"{_SCHEMA_TYPES[hint]} {named(argument, name)}"
        for argument in arguments
        for name, hint in get_type_hints(argument).items()
    ]
    outputs = ", ".join(["Tensor"] * results)
    return f"({', '.join(fields)}) -> {outputs if results == 1 else f'({outputs})'}"


def split(args: Sequence[object]) -> tuple[Operands, tuple[object, ...], Options]:
    """An operator's arguments as operands, what is between, and options."""
    first, last = len(Operands._fields), len(args) - len(Options._fields)
    return Operands(*args[:first]), tuple(args[first:last]), Options(*args[last:])  # type: ignore[arg-type]

"""A table of item vectors of which a step touches few rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index
from ..loss.working_set import WorkingSet
from .fetched_rows import FetchedRows
from .host_memory import device_tensor, host_tensor
from .read import read_rows, rows_of
from .row_set import RowSet

WEIGHT_DTYPES = (torch.float32, torch.bfloat16)


class Touched(NamedTuple):
    """Rows that a step has read, and the tensor (T, D) float32 that it read, whose ``grad`` is theirs."""

    rows: RowSet | WorkingSet
    values: Tensor


class ItemTable(nn.Module):
    """Vectors (V, D) of items, float32 or bfloat16, whose gradient is that of the rows that a step reads.

    ``table(row_set(ids))`` and ``table(working_set(..))`` are these rows (T, D), float32, a leaf of the graph. After
    ``backward``, ``touched`` has them with their gradients, which `RowWiseAdagrad`, `PartialRowWiseAdam` and `LazyAdam`
    move the table by and drop; ``clip_grad_norm_`` takes ``[rows.values for rows in table.touched]`` beside a model's
    parameters. The parameter ``weight`` itself has no gradient then: do not give it to an optimizer of dense
    parameters.

    With ``sparse`` the rows are no leaf, and ``weight.grad`` is a sparse COO tensor, which torch.optim's SparseAdam,
    Adagrad and SGD take, as of ``nn.Embedding(sparse=True)``. That waits for the device at each step.

    With ``host`` a GPU's table is in pinned memory of the host, and so are moments of its shape: the GPU reads and
    writes rows over the bus. `fetch` reads the next step's while this one computes, and writes those of the step
    before.

    Vectors start normal with a standard deviation of ``std``, from torch's default generator.
    """

    def __init__(
        self,
        num_items: int,
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        std: float = 0.02,
        sparse: bool = False,
        host: bool = False,
    ) -> None:
        super().__init__()
        shape = as_index("num_items", num_items), as_index("dim", dim)
        if min(shape) < 1:
            raise ArgumentValueError("num_items, dim", "ints of at least 1", shape)
        place = torch.empty(0, device=device).device
        empty = (host_tensor if host else device_tensor)(shape, _checked(dtype), place)
        self.weight = nn.Parameter(nn.init.normal_(empty, std=std))
        self.sparse, self.host = sparse, host
        self.touched: list[Touched] = []
        self.ahead = FetchedRows()

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, *, sparse: bool = False) -> ItemTable:
        """A table with the very parameter of an embedding; raises ArgumentValueError for one with options of its own
        for some rows."""
        for name in ("padding_idx", "max_norm"):
            if getattr(embedding, name) is not None:
                raise ArgumentValueError("embedding", f"one without {name}", getattr(embedding, name))
        if embedding.scale_grad_by_freq or not embedding.weight.is_contiguous():
            got = "scale_grad_by_freq" if embedding.scale_grad_by_freq else "one that is not"
            raise ArgumentValueError("embedding", "one with plain gradients and a contiguous weight", got)
        return cls.of(embedding.weight, sparse=sparse)

    @classmethod
    def of(cls, weight: Tensor, *, sparse: bool = False, host: bool = False) -> ItemTable:
        """A table with the very parameter ``weight`` (V, D), which is in the host's memory if ``host``."""
        _checked(weight.dtype)
        table = cls.__new__(cls)
        nn.Module.__init__(table)
        table.weight, table.sparse, table.host = weight, sparse, host
        table.touched, table.ahead = [], FetchedRows()
        return table

    def to_embedding(self) -> nn.Embedding:
        """An embedding with the table's parameter."""
        self.ahead.settle(self.weight.detach())
        embedding = nn.Embedding.from_pretrained(self.weight, sparse=self.sparse)
        embedding.weight = self.weight
        return embedding

    def forward(self, rows: RowSet | WorkingSet) -> Tensor:
        if self.sparse:
            return _SparseRows.apply(self.weight, rows.ids, rows.count)  # type: ignore[no-any-return]
        held = self.ahead.take(rows)
        if held is None:
            self.ahead.settle(self.weight.detach())
        values = rows_of(self.weight, rows) if held is None else held.to(torch.float32, copy=True)
        if torch.is_grad_enabled() and self.weight.requires_grad:
            values.requires_grad_()
            # what has no gradient in the end leaves nothing behind
            values.register_post_accumulate_grad_hook(lambda leaf: self._has_grad(Touched(rows, leaf)))
        return values

    def fetch(self, rows: RowSet | WorkingSet) -> None:
        """Begins to read the next step's ``rows`` on a stream of its own, which the next call for these very rows
        takes, as they are then. Before the step's other work, so that it reads meanwhile. What an optimizer moves in
        the step is written by the next `fetch`; what reads or writes ``weight`` itself before that calls `settle`. A
        step that is captured as a CUDA graph fetches and takes inside it, or not at all. Raises ArgumentValueError for
        a sparse table and for rows of another device."""
        if self.sparse:
            raise ArgumentValueError("table", "one that is not sparse", "a sparse one")
        if rows.ids.device != self.weight.device:
            raise ArgumentValueError("rows", f"device {self.weight.device}, the table's", rows.ids.device)
        self.ahead.fetch(self.weight.detach(), rows)

    def settle(self) -> None:
        """Has ``weight`` be the table as it is now, to be read or written by others than optimizers of rows; what was
        fetched is dropped. `fetch` alone leaves it behind; ``state_dict`` and ``load_state_dict`` see to it."""
        self.ahead.settle(self.weight.detach())
        self.ahead.drop()

    def _has_grad(self, touched: Touched) -> None:
        if all(each.values is not touched.values for each in self.touched):
            self.touched.append(touched)

    def forget(self) -> None:
        """Drops the gradients of rows that no optimizer has moved."""
        for each in self.touched:
            each.values.grad = None
        self.touched.clear()

    def extra_repr(self) -> str:
        sizes = f"{self.weight.shape[0]}, {self.weight.shape[1]}, dtype={self.weight.dtype}"
        return f"{sizes}, sparse={self.sparse}, host={self.host}"

    def _save_to_state_dict(self, *args: Any, **options: Any) -> None:
        self.ahead.settle(self.weight.detach())
        super()._save_to_state_dict(*args, **options)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self.settle()
        super()._load_from_state_dict(*args, **options)

    def __getstate__(self) -> dict[str, Any]:
        self.ahead.settle(self.weight.detach())
        # what is of one step, with leaves of its graph; a copy's weight is in the device's memory
        return {**self.__dict__, "touched": [], "ahead": FetchedRows(), "host": False}


class _SparseRows(torch.autograd.Function):
    """Rows of a table, whose gradient is sparse; ids behind the last row repeat it, with gradients of zero."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, count: Tensor) -> Tensor:
        ctx.save_for_backward(ids, count)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return read_rows(weight, ids)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        ids, count = ctx.saved_tensors
        is_row = torch.arange(len(ids), device=ids.device) < count
        values = torch.where(is_row[:, None], grad, 0.0).to(ctx.dtype)
        every = torch.sparse_coo_tensor(ids.long()[None], values, ctx.shape, check_invariants=False)
        return every, None, None


def _checked(dtype: torch.dtype) -> torch.dtype:
    if dtype not in WEIGHT_DTYPES:
        raise ArgumentTypeError("dtype", "torch.float32 or torch.bfloat16", dtype)
    return dtype

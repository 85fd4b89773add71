"""Optimizers of item tables: a step moves the rows that were touched, in place, and reads and writes nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...kernels.draws.permutation import fold_seed
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index, as_number
from ...kernels.plan.row_update import RowRule, Rule, row_rule
from ..loss.row_losses import resolve_impl
from ..loss.seeds import signed
from ..loss.working_set import WorkingSet
from .host_memory import device_tensor, host_tensor
from .item_table import ItemTable, Touched
from .row_copies import Moved, fetch_rows
from .row_set import RowSet, row_set
from .update import update_rows

Tables = ItemTable | Iterable[ItemTable] | Iterable[Mapping[str, Any]]


class RowOptimizer(Optimizer):
    """What `RowWiseAdagrad`, `PartialRowWiseAdam` and `LazyAdam` share.

    ``tables`` is an `ItemTable`, several, or groups ``{"params": tables, "lr": ..}`` as of any optimizer. A step moves
    the rows that a table's ``touched`` has gradients for, at most once each, and empties it; so does ``zero_grad`` of
    the optimizer, of which the module's knows nothing. Rows that are not touched keep their weights and states; weight
    decay is decoupled, and a row feels it when it is touched. A bfloat16 table is rounded at random, without bias, by
    (``seed``, the table's number, update, row, column), or without ``stochastic_rounding`` to the nearest. States are
    float32. ``lr`` may be a tensor, which a CUDA graph reads anew. `torch.amp.GradScaler` and
    `DistributedDataParallel` do not see these gradients.
    """

    _rule: Rule

    def __init__(
        self, tables: Tables, *, lr: float | Tensor, betas: tuple[float, float] = (0.0, 0.0), eps: float,
        weight_decay: float, stochastic_rounding: bool, seed: int, impl: str,
    ) -> None:  # fmt: skip
        if impl not in ("auto", "triton", "reference"):
            raise ArgumentValueError("impl", "'auto', 'triton' or 'reference'", impl)
        self._tables: dict[Tensor, ItemTable] = {}
        self._stochastic_rounding, self._seed, self._impl = stochastic_rounding, as_index("seed", seed), impl
        self._seeds: dict[Tensor, Tensor] = {}
        groups: list[Any] = [tables] if isinstance(tables, (ItemTable, Mapping)) else list(tables)
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A group of tables under "params", with options of its own."""
        unknown = sorted(param_group.keys() - self.defaults.keys() - {"params", "initial_lr"})
        if unknown:
            raise ArgumentValueError("tables", f"groups of params, {', '.join(self.defaults)}", ", ".join(unknown))
        options = self.defaults | param_group
        lr = options["lr"]
        if not isinstance(lr, Tensor) and not as_number("lr", lr) >= 0:
            raise ArgumentValueError("lr", "a number of at least 0", lr)
        self._rule_of(options)
        tables = param_group["params"]
        tables = [tables] if isinstance(tables, ItemTable) else list(tables)
        for table in tables:
            if not isinstance(table, ItemTable) or table.sparse:
                got = "one that is sparse" if isinstance(table, ItemTable) else type(table).__name__
                raise ArgumentTypeError("tables", "ItemTables", got)
            if table.weight in self._tables:
                raise ArgumentValueError("tables", "tables of different weights", "a weight twice")
            self._tables[table.weight] = table
        super().add_param_group({**param_group, "params": [table.weight for table in tables]})
        for table in tables:  # now: a state that is made in a CUDA graph would be made anew by each replay
            self._start(table.weight, self._rule_of(options))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rule = self._rule_of(group)
            for weight in group["params"]:
                if weight.grad is not None:
                    got = "one of its own, as of an output that reads all of it"
                    raise ArgumentValueError("table.weight", "gradients of the rows that were read alone", got)
                touched = _merged([each for each in self._tables[weight].touched if each.values.grad is not None])
                if touched is not None:
                    self._move(weight, *touched, group["lr"], rule)
                self._tables[weight].forget()
        return loss

    @torch.no_grad()
    def update(self, table: ItemTable, rows: RowSet | WorkingSet, grad: Tensor) -> None:
        """Moves ``rows`` of one of the optimizer's tables by their gradient ``grad`` (T, D): a `step` for rows that
        were read by ``rows_of``. ``torch.compile`` takes it as a whole, like working sets, ``rows_of`` and the loss,
        but not beside a table's ``fetch``.

        Raises ArgumentValueError for a table that is not the optimizer's, and for a gradient of another shape."""
        weight = table.weight
        for group in self.param_groups:
            if any(each is weight for each in group["params"]):
                break
        else:
            raise ArgumentValueError("table", "one of the optimizer's tables", "another")
        if grad.shape != (len(rows.ids), weight.shape[1]):
            raise ArgumentValueError("grad", f"shape {(len(rows.ids), weight.shape[1])}", tuple(grad.shape))
        self._move(weight, rows.ids, rows.count, grad, group["lr"], self._rule_of(group))

    def _rule_of(self, group: Mapping[str, Any]) -> RowRule:
        return row_rule(self._rule, betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"])

    def _move(
        self, weight: Tensor, ids: Tensor, count: Tensor, grad: Tensor, lr: float | Tensor, rule: RowRule
    ) -> None:
        state = self.state[weight]
        state["step"] += 1
        numbers = {"dtype": torch.float32, "device": weight.device}
        rate = lr.to(**numbers).reshape(1) if isinstance(lr, Tensor) else torch.full((1,), lr, **numbers)
        rounds = self._stochastic_rounding and weight.dtype == torch.bfloat16
        table = self._tables[weight]
        held = table.ahead.held(ids)
        if held is None:
            table.ahead.settle(weight.detach())
        update_rows(
            weight if held is None else held, state.get("first"), state["second"], ids, count, grad, rate,
            state["step"], self._seed_of(weight) if rounds else None, rule, resolve_impl(self._impl, weight.device),
            apart=held is not None,
        )  # fmt: skip
        if held is not None:
            table.ahead.moved(Moved(ids, count, held), is_written=False)
        elif table.ahead.is_reading:
            table.ahead.moved(Moved(ids, count, fetch_rows(weight, ids)), is_written=True)

    def _start(self, weight: Tensor, rule: RowRule) -> None:
        for name, shape in _shapes(weight, rule).items():
            dtype = torch.int32 if name == "step" else torch.float32
            of_host = self._tables[weight].host and shape == weight.shape
            empty = host_tensor if of_host else device_tensor
            self.state[weight][name] = empty(shape, dtype, weight.device).zero_()
        self._seed_of(weight)  # which compiled code could not make

    def _seed_of(self, weight: Tensor) -> Tensor:
        if weight not in self._seeds:
            number = [id(each) for each in self._tables].index(id(weight))  # == compares numbers
            words = torch.tensor([signed(fold_seed(self._seed, number))], device=weight.device)
            self._seeds[weight] = words.view(torch.int32)
        return self._seeds[weight]

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for table in self._tables.values():
            table.forget()

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer; states stay float32 beside a table of another dtype. Raises ArgumentValueError for those
        of another rule or of tables of other sizes."""
        numbered = [weight for group in self.param_groups for weight in group["params"]]
        saved = [number for group in state_dict["param_groups"] for number in group["params"]]
        states = [state_dict["state"].get(number) for number in saved]
        for weight, state in zip(numbered, states, strict=False):
            rule = self._rule_of(self.param_groups[0])
            got = None if state is None else {name: tuple(value.shape) for name, value in state.items()}
            if got is not None and got != (expected := _shapes(weight, rule)):
                raise ArgumentValueError("state_dict", f"states of shapes {expected}", got)
        held = {weight: self.state[weight] for weight in numbered}
        super().load_state_dict({**state_dict, "state": {}})
        for weight, state in zip(numbered, states, strict=True):
            self.state[weight] = held[weight]  # where it is in memory, of the host or the GPU
            for name, value in (state or {}).items():
                self.state[weight][name].copy_(value)

    def __getstate__(self) -> dict[str, Any]:
        for weight, table in self._tables.items():
            table.ahead.settle(weight.detach())  # a copy takes the weights before the tables
        own = ("_tables", "_stochastic_rounding", "_seed", "_impl")
        return super().__getstate__() | {name: getattr(self, name) for name in own} | {"_seeds": {}}


def _shapes(weight: Tensor, rule: RowRule) -> dict[str, tuple[int, ...]]:
    """Of a table's state, by name."""
    num_items, dim = weight.shape
    first = {"first": (num_items, dim)} if rule.has_first else {}
    return {"step": (1,), **first, "second": rule.second_shape(num_items, dim)}


def _merged(touched: list[Touched]) -> tuple[Tensor, Tensor, Tensor] | None:
    """(ids, count, gradient) of the rows of all reads, each row once; None of none."""
    if not touched:
        return None
    if len(touched) == 1:
        rows, values = touched[0]
        assert values.grad is not None
        return rows.ids, rows.count, values.grad
    is_row = [torch.arange(len(rows.ids), device=rows.ids.device) < rows.count for rows, _ in touched]
    every = [torch.where(live, rows.ids, -1) for live, (rows, _) in zip(is_row, touched, strict=True)]
    found = row_set(torch.cat(every))
    first = touched[0].values
    grad = torch.zeros(len(found.ids), first.shape[1], dtype=first.dtype, device=first.device)
    places = found.places.split([len(ids) for ids in every])
    for (_, values), place in zip(touched, places, strict=True):  # one by one: distinct places, so the same bits always
        assert values.grad is not None
        grad.index_add_(0, place.clamp(min=0), torch.where((place >= 0)[:, None], values.grad, 0.0))
    return found.ids, found.count, grad


class RowWiseAdagrad(RowOptimizer):
    """Adagrad with one number a row: the sum of its mean squared gradients. ``s <- s + mean(g^2)``, ``w <- (1 - lr
    weight_decay) w - lr g / (sqrt(s) + eps)``; FBGEMM's EXACT_ROWWISE_ADAGRAD."""

    _rule = "rowwise_adagrad"

    def __init__(
        self, tables: Tables, lr: float | Tensor = 1e-2, *, eps: float = 1e-8, weight_decay: float = 0.0,
        stochastic_rounding: bool = True, seed: int = 0, impl: str = "auto",
    ) -> None:  # fmt: skip
        super().__init__(
            tables, lr=lr, eps=eps, weight_decay=weight_decay, stochastic_rounding=stochastic_rounding, seed=seed,
            impl=impl,
        )  # fmt: skip


class PartialRowWiseAdam(RowOptimizer):
    """Adam whose second moment is one number a row. ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) mean(g^2)``, ``w
    <- (1 - lr weight_decay) w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)`` at update t of the table; FBGEMM's
    PARTIAL_ROWWISE_ADAM."""

    _rule = "partial_rowwise_adam"

    def __init__(
        self, tables: Tables, lr: float | Tensor = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, stochastic_rounding: bool = True, seed: int = 0,
        impl: str = "auto",
    ) -> None:  # fmt: skip
        super().__init__(
            tables, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, stochastic_rounding=stochastic_rounding,
            seed=seed, impl=impl,
        )  # fmt: skip


class LazyAdam(PartialRowWiseAdam):
    """Adam whose moments move with the rows that are touched. ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``,
    ``w <- (1 - lr weight_decay) w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)`` at update t of the table;
    torch.optim.SparseAdam's rule."""

    _rule = "lazy_adam"

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
from .item_table import ItemTable, Touched
from .row_set import row_set
from .update import update_rows

Tables = ItemTable | Iterable[ItemTable] | Iterable[Mapping[str, Any]]


class RowOptimizer(Optimizer):
    """What `RowWiseAdagrad`, `PartialRowWiseAdam` and `LazyAdam` share.

    ``tables`` is an `ItemTable`, several, or groups ``{"params": tables, "lr": ..}`` as of any optimizer. A step moves
    the rows that a table's ``touched`` has gradients for, at most once each, and empties it. Rows that are not touched
    keep their weights and states; weight decay is decoupled, and a row feels it when it is touched. A bfloat16 table is
    rounded at random, without bias, by (``seed``, the table's number, update, row, column), or without
    ``stochastic_rounding`` to the nearest. States are float32. ``lr`` may be a tensor, which a CUDA graph reads anew.
    """

    _rule: Rule

    def __init__(
        self, tables: Tables, *, lr: float | Tensor, betas: tuple[float, float] = (0.0, 0.0), eps: float,
        weight_decay: float, stochastic_rounding: bool, seed: int, impl: str,
    ) -> None:  # fmt: skip
        if not isinstance(lr, Tensor) and as_number("lr", lr) < 0:
            raise ArgumentValueError("lr", "a number of at least 0", lr)
        if impl not in ("auto", "triton", "reference"):
            raise ArgumentValueError("impl", "'auto', 'triton' or 'reference'", impl)
        row_rule(self._rule, betas=betas, eps=eps, weight_decay=weight_decay)
        self._tables: dict[Tensor, ItemTable] = {}
        self._stochastic_rounding, self._seed, self._impl = stochastic_rounding, as_index("seed", seed), impl
        self._seeds: dict[Tensor, Tensor] = {}
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(self._groups(tables), defaults)

    def _groups(self, tables: Any) -> list[dict[str, Any]]:
        tables = [tables] if isinstance(tables, (ItemTable, Mapping)) else list(tables)
        if tables and all(isinstance(each, Mapping) for each in tables):
            return [{**group, "params": self._weights(group.get("params"))} for group in tables]
        return [{"params": self._weights(tables)}]

    def _weights(self, tables: Any) -> list[Tensor]:
        tables = [tables] if isinstance(tables, ItemTable) else list(tables or ())
        for table in tables:
            if not isinstance(table, ItemTable) or table.sparse:
                got = "one that is sparse" if isinstance(table, ItemTable) else type(table).__name__
                raise ArgumentTypeError("tables", "ItemTables", got)
            self._tables[table.weight] = table
        return [table.weight for table in tables]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rule = self._rule_of(group)
            for weight in group["params"]:
                touched = _merged([each for each in self._tables[weight].touched if each.values.grad is not None])
                if touched is not None:
                    self._move(weight, *touched, group["lr"], rule)
                self._tables[weight].touched.clear()
        return loss

    def _rule_of(self, group: Mapping[str, Any]) -> RowRule:
        return row_rule(self._rule, betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"])

    def _move(
        self, weight: Tensor, ids: Tensor, count: Tensor, grad: Tensor, lr: float | Tensor, rule: RowRule
    ) -> None:
        state = self.state[weight]
        if not state:
            self._start(weight, rule)
        state["step"] += 1
        rate = lr.float().reshape(1) if isinstance(lr, Tensor) else torch.full((1,), lr, device=weight.device)
        rounds = self._stochastic_rounding and weight.dtype == torch.bfloat16
        update_rows(
            weight, state.get("first"), state["second"], ids, count, grad, rate.to(weight.device), state["step"],
            self._seed_of(weight) if rounds else None, rule, resolve_impl(self._impl, weight.device),
        )  # fmt: skip

    def _start(self, weight: Tensor, rule: RowRule) -> None:
        numbers = {"dtype": torch.float32, "device": weight.device}
        state = self.state[weight]
        state["step"] = torch.zeros(1, dtype=torch.int32, device=weight.device)
        if rule.has_first:
            state["first"] = torch.zeros(tuple(weight.shape), **numbers)
        state["second"] = torch.zeros(rule.second_shape(*weight.shape), **numbers)

    def _seed_of(self, weight: Tensor) -> Tensor:
        if weight not in self._seeds:
            number = list(self._tables).index(weight)
            words = torch.tensor([signed(fold_seed(self._seed, number))], device=weight.device)
            self._seeds[weight] = words.view(torch.int32)
        return self._seeds[weight]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for table in self._tables.values():
            table.touched.clear()

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer; states stay float32 beside a table of another dtype."""
        super().load_state_dict(state_dict)
        numbered = [weight for group in self.param_groups for weight in group["params"]]
        saved = [number for group in state_dict["param_groups"] for number in group["params"]]
        for weight, number in zip(numbered, saved, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[weight][name] = value.to(weight.device, copy=True)


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

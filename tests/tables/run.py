"""Row sets and updates of either framework on NumPy arrays."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from cce_minus.jax_impl.tables import row_set as jax_row_set
from cce_minus.jax_impl.tables import update as jax_update
from cce_minus.kernels.draws.permutation import seed_words
from cce_minus.kernels.plan.row_update import RowRule
from cce_minus.torch_impl.tables import row_set as torch_row_set
from cce_minus.torch_impl.tables import update as torch_update

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def words(seed: int) -> np.ndarray:
    high, low = seed_words(seed)
    return np.array([low, high], np.uint32).view(np.int32)


def row_set(
    framework: str, ids: np.ndarray, bound: int | None = None, impl: str = "auto"
) -> tuple[np.ndarray, np.ndarray, int]:
    """(ids, places, count)."""
    if framework == "torch":
        found: Any = torch_row_set.row_set(torch.from_numpy(ids).to(DEVICE), bound, impl=impl)
        found = [each.cpu().numpy() for each in found]
    else:
        found = jax.jit(partial(jax_row_set.row_set, bound=bound, impl=impl))(jnp.asarray(ids))
        found = [np.asarray(each) for each in found]
    return found[0], found[1], int(found[2][0])


def update(
    framework: str, impl: str, table: dict[str, np.ndarray], rule: RowRule, ids: np.ndarray, count: int,
    grad: np.ndarray, rate: float, step: int, seed: int | None = None, *, dtype: str = "float32",
) -> dict[str, np.ndarray]:  # fmt: skip
    """The table's arrays after an update, float32; its weight is kept in ``dtype``."""
    names = ("weight", "second", *(("first",) if rule.has_first else ()))
    rest: dict[str, Any] = {
        "ids": ids.astype(np.int32),
        "count": np.array([count], np.int32),
        "grad": grad.astype(np.float32),
        "rate": np.array([rate], np.float32),
        "step": np.array([step], np.int32),
        "seed": None if seed is None else words(seed),
    }
    if framework == "torch":
        arrays = {name: torch.tensor(table[name].astype(np.float32), device=DEVICE) for name in names}
        arrays["weight"] = arrays["weight"].to(getattr(torch, dtype))
        others: dict[str, Any] = {
            name: None if each is None else torch.from_numpy(each).to(DEVICE) for name, each in rest.items()
        }
        torch_update.update_rows(
            arrays["weight"],
            arrays.get("first"),
            arrays["second"],
            **others,
            rule=rule,
            impl=impl,  # type: ignore[arg-type]
        )
        return {name: array.float().cpu().numpy() for name, array in arrays.items()}
    tables = {name: jnp.asarray(table[name].astype(np.float32)) for name in names}
    tables["weight"] = tables["weight"].astype(dtype)

    @jax.jit
    def moved(tables: Any, others: Any) -> Any:
        return jax_update.update_rows(
            tables["weight"], tables.get("first"), tables["second"], **others, rule=rule, impl=impl
        )

    weight, first, second = moved(tables, rest)
    found = {"weight": weight, "second": second} | ({} if first is None else {"first": first})
    return {name: np.asarray(array.astype(jnp.float32)) for name, array in found.items()}

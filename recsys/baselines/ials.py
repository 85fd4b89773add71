"""Matrix factorization of what users took, by the package implicit."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, take_ranges
from ..errors import ConfigError
from ..protocol.metrics import ndcg_at_k
from ..protocol.splits import Split
from .baseline import ScoredBaseline

logger = logging.getLogger(__name__)

FACTORS = 64
ALPHAS = (1.0, 4.0, 16.0, 64.0)
REGULARIZATION = 0.01
ITERATIONS = 15
_CHOOSING = 2000
"""Training rows, drawn by the seed, whose last items choose alpha where no validation is held out."""


class Ials(ScoredBaseline):
    """Implicit alternating least squares (Hu, Koren and Volinsky, 2008): the score of item i is ``x . y_i``.

    Of training rows u and items i the factors x_u and y_i (``FACTORS``,) minimise
    ``sum c_ui (p_ui - x_u . y_i)^2 + regularization (sum |x_u|^2 + sum |y_i|^2)`` over all pairs, with p = 1 and
    c = ``alpha`` times the number of events where there are any, else p = 0 and c = 1. Any history, trained on or not,
    gets its x by one solve with the items' factors as they are. Factors are float32; ``seed`` decides where they start.
    After an empty history items are in order of their popularity. Raises ``ConfigError`` without the package.
    """

    def __init__(self, train: Ragged, num_items: int, *, alpha: float, seed: int = 0) -> None:
        require_implicit()
        super().__init__(train, num_items)
        self.alpha = alpha
        # imports here: other baselines do without, and it takes a second
        from implicit.cpu.als import AlternatingLeastSquares  # pyright: ignore[reportMissingImports]

        with _one_blas_thread():
            self._model = AlternatingLeastSquares(
                factors=FACTORS, regularization=REGULARIZATION, alpha=alpha, iterations=ITERATIONS, random_state=seed
            )
            self._model.fit(_table(train, num_items), show_progress=False)

    def scores(self, histories: Ragged) -> npt.NDArray[np.float32]:
        """As `ScoredBaseline.scores`."""
        with _one_blas_thread():
            users = self._model.recalculate_user(np.arange(len(histories)), _table(histories, self.num_items))
        # each score as a product of its own, as in target_ranks: equal rows tie wherever they stand
        scores = np.einsum("bd,vd->bv", users, self._model.item_factors, optimize=False)
        scores[histories.lengths == 0] = self.popularity_levels
        return scores


def fit_ials(split: Split, *, filter_seen: bool = False, seed: int = 0) -> Ials:
    """With the alpha of ``ALPHAS`` that has the highest NDCG@10 on the validation targets, of equal ones the least;
    ``filter_seen`` as in `Baseline.ranks`. Where no event was held out for validation, the last items of up to 2000
    training rows are, for this choice alone."""
    histories, targets, rows = split.valid_history, split.valid_target, split.train
    if not len(targets):
        chosen = np.flatnonzero(rows.lengths >= 2)
        if len(chosen) > _CHOOSING:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, _CHOOSING, replace=False))
        starts, stops = rows.offsets[chosen], rows.offsets[chosen + 1]
        histories, targets = take_ranges(rows.values, starts, stops - 1), rows.values[stops - 1]
        without = np.zeros(len(rows), np.int64)
        without[chosen] = 1
        rows = take_ranges(rows.values, rows.offsets[:-1], rows.offsets[1:] - without)
    best, reached = None, []
    for alpha in ALPHAS:
        model = Ials(rows, split.num_items, alpha=alpha, seed=seed)
        reached.append(ndcg_at_k(model.ranks(histories, targets, filter_seen=filter_seen), 10))
        if best is None or reached[-1] > max(reached[:-1]):
            best = model
    assert best is not None
    tried = ", ".join(f"{alpha:g} {ndcg:.4f}" for alpha, ndcg in zip(ALPHAS, reached, strict=True))
    logger.info("ials: alpha %g by NDCG@10 on validation targets (%s)", best.alpha, tried)
    return best if rows is split.train else Ials(split.train, split.num_items, alpha=best.alpha, seed=seed)


def require_implicit() -> None:
    """Raises ``ConfigError`` where the package is not installed."""
    if importlib.util.find_spec("implicit") is None:
        raise ConfigError(
            "baselines: ials expected the package implicit, got none; pip install 'cce-minus[baselines]' installs it"
        )


def _one_blas_thread() -> Any:
    """The package's own threads share out users; BLAS threads inside them would get in each other's way."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def _table(rows: Ragged, num_items: int) -> Any:
    """(rows, V) sparse float32: how often each row has each item."""
    from scipy.sparse import csr_matrix  # comes with the package implicit

    # copies: the next line sorts and shortens the table's own arrays
    parts = (np.ones(len(rows.values), np.float32), rows.values.copy(), rows.offsets.copy())
    table = csr_matrix(parts, shape=(len(rows), num_items))
    table.sum_duplicates()
    return table

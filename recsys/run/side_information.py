"""What a run knows about its items beside the events: constant features, and rows for its item table to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.catalog import Catalog
from ..data.interactions import Interactions
from ..data.item_features import categories
from ..data.item_rows import read_item_rows
from ..data.item_vectors import dense_features, initial_rows, read_vectors
from ..data.numeric_features import numeric_features
from ..errors import ConfigError
from .config import TrainConfig
from .feature_choices import parse_columns
from .weights_file import ITEM_FEATURES, read_tensors

VECTOR, CATEGORY = "\0vector ", "="
"""How the name of a column begins that a file of vectors has given, as no column of a file does, and what is in that of
a category's value."""


@dataclass(frozen=True, eq=False)
class SideInformation:
    """``features`` (V, P) float32, P = 0 where there are none; ``initial`` (V, D) float32 of standard deviation 1, the
    directions in which the item table starts, or None. ``columns`` are P names of the features: a category's value, a
    number's column or bin, or `VECTOR` and the number of a vector's column; these come last."""

    features: npt.NDArray[np.float32]
    initial: npt.NDArray[np.float32] | None = None
    columns: tuple[str, ...] = ()

    @property
    def num_features(self) -> int:
        return self.features.shape[1]

    def require_same(self, weights: str | Path, option: str) -> None:
        """Raises ``ConfigError`` naming ``option`` where a weights file was trained with other features: its projection
        would meet columns of another meaning."""
        tensor = read_tensors(weights).get(ITEM_FEATURES)
        stored = self.features[:, :0] if tensor is None else tensor.array()
        if stored.shape != self.features.shape or not self._near(stored):
            raise ConfigError(
                f"{option}: expected the item features {self.features.shape} of this run's files, got others "
                f"{stored.shape} in {weights}"
            )

    def _near(self, stored: npt.NDArray[np.float32]) -> bool:
        """Whether features of this shape are the same up to what another machine may round differently."""
        last = sum(not name.startswith(VECTOR) for name in self.columns)
        sums = np.allclose(stored[:, :last], self.features[:, :last], rtol=1e-5, atol=1e-6)
        # Principal components differ by more, while a price of many may differ by little and be another.
        return sums and np.allclose(stored[:, last:], self.features[:, last:], rtol=0, atol=1e-3)


def side_information(config: TrainConfig, interactions: Interactions) -> SideInformation:
    """Reads the files that ``config`` names: the multi-hot categories, then the numbers, then the vectors as dense
    features or as initial rows.

    The features take 4 V P bytes. Raises ``DataError`` and ``ConfigError`` as `read_item_rows`, `categories`,
    `numeric_features`, `read_vectors` and `dense_features` do.
    """
    catalog = Catalog.of(interactions)
    features, columns, initial = [np.zeros((len(catalog), 0), np.float32)], [], None
    if config.item_features is not None:
        named, numeric = (parse_columns(name, getattr(config, name)) for name in ("feature_columns", "numeric_columns"))
        rows = read_item_rows(config.item_features, catalog, item_column=config.item_column, columns=[*named, *numeric])
        bins = config.numeric_bins if config.numeric_as == "quantiles" else None
        found = [categories(rows, named)] if named else []
        found += [numeric_features(rows, numeric, bins=bins)] if numeric else []
        for part, names in found:
            features.append(part)
            columns += names
    if config.item_vectors is not None:
        vectors, has_vector = read_vectors(config.item_vectors, catalog, item_column=config.item_column)
        if config.item_vectors_as == "initial":
            initial = initial_rows(vectors, has_vector, dim=config.dim)
        else:
            features.append(dense_features(vectors, has_vector, dim=config.item_vectors_dim))
            columns += [f"{VECTOR}{number}" for number in range(features[-1].shape[1])]
    return SideInformation(np.concatenate(features, axis=1), initial, tuple(columns))

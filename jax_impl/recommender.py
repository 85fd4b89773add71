"""A recommender as an object, in JAX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ..recsys import TrainConfig
from ..recsys.data.memory_tables import Log
from ..recsys.run.events import Callback
from ..recsys.run.progress import TrainResult
from ..recsys.serving.recommender import BaseRecommender
from .processes import require_file
from .serve import ServedModel, load_served
from .train import train


class Recommender(BaseRecommender):
    """A sequential recommender, trained and served by JAX. Options are those of training, by keyword; `fit` takes a
    path or a table in memory, and any run's folder can be loaded, whichever framework trained it:

        model = Recommender(epochs=20, dim=128).fit("events.parquet")
        model.recommend(users=["u1", "u2"], k=10)
        model.save("model")
        Recommender.load("model").recommend(sequences=[["a", "b"]])
    """

    _framework = "jax"

    def fit(self, log: Log, y: None = None, *, callbacks: Sequence[Callback] = ()) -> Self:
        """As `recsys.serving.recommender.BaseRecommender.fit`; several processes take a path."""
        require_file(log, self.get_params()["devices"])
        return super().fit(log, y, callbacks=callbacks)

    def _train(self, config: TrainConfig, callbacks: Sequence[Callback]) -> TrainResult:
        return train(config, callbacks=callbacks)

    def _load(self, weights: Path, device: str, precision: str) -> ServedModel:
        return load_served(weights, device, precision)

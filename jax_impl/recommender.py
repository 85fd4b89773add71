"""A recommender as an object, in JAX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..recsys import TrainConfig
from ..recsys.run.events import Callback
from ..recsys.run.progress import TrainResult
from ..recsys.serving.recommender import BaseRecommender
from .processes import started_together
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

    def _train(self, config: TrainConfig, callbacks: Sequence[Callback]) -> TrainResult:
        return train(config, callbacks=callbacks)

    def _trains_together(self, config: TrainConfig) -> bool:
        return started_together(config)

    def _load(self, weights: Path, device: str, precision: str) -> ServedModel:
        return load_served(weights, device, precision)

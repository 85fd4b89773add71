"""A search for options with Optuna: ``python docs/examples/search_with_optuna.py torch`` (or ``jax``).

Each trial fits a recommender and is told after each epoch how well it validates; one that does worse than most before
it ends there. It needs ``pip install optuna``. The log is made up: customers who go through the chapters of a series.
Replace ``make_log`` by the path of your own, with one event a row: who, what and when.
"""

from __future__ import annotations

import importlib
import sys

import numpy as np
import optuna
import pyarrow as pa
from cce_minus.recsys import EpochEnded

SERIES, CHAPTERS, CUSTOMERS = 12, 10, 150


def make_log() -> pa.Table:
    """A customer reads 8 chapters of a series, one a day."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, CHAPTERS, CUSTOMERS)[:, None]
    chapter = (first + np.arange(8)) % CHAPTERS
    item = rng.integers(0, SERIES, CUSTOMERS)[:, None] * CHAPTERS + chapter
    columns = {"user_id": np.repeat(np.arange(CUSTOMERS), 8), "item_id": item.ravel()}
    return pa.table({**columns, "timestamp": np.tile(np.arange(8), CUSTOMERS)})


class Pruning:
    """A callback that tells a trial each validation, and ends it where Optuna says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def __call__(self, event: object) -> None:
        if not isinstance(event, EpochEnded) or not event.metrics:
            return
        self.trial.report(event.metrics["ndcg@10"], event.epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned  # comes out of fit as it is


def main(framework: str, trials: int = 8) -> optuna.Study:
    """Searches, and prints the best options with their metrics on the test, which the search has not seen."""
    recommender = importlib.import_module(f"cce_minus.{framework}_impl").Recommender
    log = make_log()
    fixed = {"max_length": 8, "dim": 32, "negatives": "all", "epochs": 6, "warmup_steps": 10, "device": "cpu"}

    def objective(trial: optuna.Trial) -> float:
        options = {
            "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        }
        model = recommender(**fixed, **options).fit(log, callbacks=[Pruning(trial)])
        return model.result_.valid["ndcg@10"]  # of the best epoch

    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=trials)
    best = recommender(**fixed, **study.best_params).fit(log)
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    print(f"{trials} trials, of which {pruned} ended early; the best: {study.best_params}")
    print(f"NDCG@10 on validation: {study.best_value:.3f}, on the test: {best.evaluate()['ndcg@10']:.3f}")
    return study


if __name__ == "__main__":
    if sys.argv[1:] not in (["torch"], ["jax"]):
        sys.exit("usage: python docs/examples/search_with_optuna.py torch|jax")
    main(sys.argv[1])

"""The training command's defaults beside what a search over four of its options finds."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from .cells import DATASETS, Cell, Dataset, Method, Run

EPOCHS = 100
"""Of every run; the search's take them all, the defaults stop as the training command does."""

_LARGE = ("retailrocket", "amazon_beauty_full", "amazon_sports", "git_commits", "amazon_beauty")
_SMALL = ("complete_journey", "ml_100k", "ml_latest_small")
_MANY_VALIDATED = ("amazon_beauty_full", "amazon_sports", "git_commits", "amazon_beauty")
TUNED_SETS = (*_LARGE, *_SMALL)
"""Those whose runs take longest first, as several train at once."""

REAL_TIMES = ("ml_100k", "ml_latest_small", "complete_journey", "git_commits")
"""Where the defaults are also measured by a split in time."""

TUNED: dict[str, tuple[Any, ...]] = {
    "learning_rate": (3e-4, 1e-3, 3e-3),
    "dropout": (0.1, 0.3, 0.5),
    "max_length": (50, 200),
    "negatives": (256, 1024, 4096, "all"),
}
"""The search: `DRAWS` combinations at random, the same for each data set."""

DRAWS = 16

FINALISTS: dict[str, tuple[int, ...]] = {
    "amazon_beauty": (2, 12, 14),
    "amazon_sports": (2, 14, 12),
    "amazon_beauty_full": (14, 2, 12),
    "git_commits": (12, 15, 8),
    "retailrocket": (2, 10, 12),
}
"""Of sets whose runs take long, the draws with the best validation NDCG@10 from the first seed, which alone are trained
from a second."""

SEEDS = {"ml_100k": 4, "ml_latest_small": 4}
"""Where runs differ most, and take seconds; elsewhere two."""

DEFAULTS = Method("defaults", {}, of_product=True)
IN_TIME = Method("defaults, global temporal split", {"split": "global-temporal"}, of_product=True)


def draws() -> list[Method]:
    """`DRAWS` combinations of `TUNED`, in which the values of an option come equally often, as far as they can."""
    rng, columns = random.Random(0), list[list[Any]]()
    for values in TUNED.values():
        column = [values[number % len(values)] for number in range(DRAWS)]
        rng.shuffle(column)
        columns.append(column)
    return [_drawn(*combination) for combination in zip(*columns, strict=True)]


def _drawn(learning_rate: float, dropout: float, max_length: int, negatives: int | str) -> Method:
    drawn = {"negatives": "all"} if negatives == "all" else {"negatives": "uniform", "num_negatives": negatives}
    options = {"learning_rate": learning_rate, "dropout": dropout, "max_length": max_length, **drawn}
    name = f"rate {learning_rate}, dropout {dropout}, length {max_length}, negatives {negatives}"
    return Method(name, {"patience": EPOCHS, **options}, of_product=True)


def default_runs() -> Iterable[Run]:
    """The defaults; where times are real, by a split in time too."""
    for name in TUNED_SETS:
        # what the default of 0 is there, said so that another rule for few users leaves these rows
        data = _dataset(name, {"patience": 10} if name in _MANY_VALIDATED else {})
        for seed in _seeds(name):
            yield Run(Cell(data, DEFAULTS), seed)
            if name in REAL_TIMES:
                yield Run(Cell(_dataset(name), IN_TIME), seed)


def search_runs() -> Iterable[Run]:
    """The draws, from several seeds."""
    for name in TUNED_SETS:
        # what the default of 0 is there, said so that another rule for small logs leaves these rows
        data = _dataset(name, {"batch_size": 128} if name in _LARGE else {})
        for seed in _seeds(name):
            chosen = FINALISTS[name] if name in FINALISTS and seed > 1 else range(DRAWS)
            for number in chosen:
                yield Run(Cell(data, draws()[number]), seed)


def _dataset(name: str, options: dict[str, Any] | None = None) -> Dataset:
    split = {each: value for each, value in _known(name).items() if each in ("split", "split_quantile")}
    return Dataset(name, EPOCHS, {**split, **(options or {})})


def _known(name: str) -> dict[str, Any]:
    return DATASETS[name].options if name in DATASETS else {}


def _seeds(name: str) -> range:
    return range(1, SEEDS.get(name, 2) + 1)

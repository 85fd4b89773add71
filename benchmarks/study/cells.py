"""What the study trains: data sets with their protocol and model, methods, and the parts of the grid that pair them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cce_minus.recsys import TrainConfig

Options = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A file ``<name>.parquet``, how it is split, and the model and optimiser that all methods share on it."""

    name: str
    epochs: int
    options: Options


@dataclass(frozen=True)
class Method:
    """A loss with its negatives. ``one_draw`` takes the negatives of a step once for the whole batch, with
    replacement. ``of_product`` leaves everything else to the training command's defaults."""

    name: str
    options: Options
    one_draw: bool = False
    of_product: bool = False


@dataclass(frozen=True)
class Cell:
    """A method on a data set, with options that differ from the data set's own."""

    dataset: Dataset
    method: Method
    changes: Options = field(default_factory=dict)

    def config(self, data: Path, seed: int) -> TrainConfig:
        epochs = self.dataset.epochs
        shared: Options = {"epochs": epochs, "precision": "bf16", "seed": seed}
        if not self.method.of_product:
            shared |= {"patience": epochs, "negatives": "uniform", "group_by_length": False}
        options = {**shared, **self.dataset.options, **self.method.options, **self.changes}
        return TrainConfig(data=str(data / f"{self.dataset.name}.parquet"), **options)

    @property
    def digest(self) -> str:
        """`digest_of` the cell's options, another one for ``one_draw``."""
        return digest_of(self.config(Path(), 0), one_draw=self.method.one_draw)


def digest_of(config: TrainConfig, *, one_draw: bool = False) -> str:
    """Eight hexadecimal digits that follow from the data set's name and from every option that shapes a result and is
    not at the default of `_FIRST_DEFAULTS`: an option added later leaves them as they are, and so does another
    default."""
    values = {
        field.name: (getattr(config, field.name), _FIRST_DEFAULTS.get(field.name, field.default))
        for field in dataclasses.fields(config)
        if field.name not in _NO_RESULT
    }
    if not config.num_negatives:  # no draws
        del values["num_negatives"]
    options = {name: value for name, (value, default) in values.items() if value != default}
    described = {**options, "data": Path(config.data).stem} | ({"one_draw": True} if one_draw else {})
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


_FIRST_DEFAULTS: Options = {
    "batch_size": 32, "dropout": 0.4, "epochs": 10, "group_by_length": False, "learning_rate": 3e-3,
    "negatives": "uniform", "num_negatives": 256, "patience": 5, "warmup_steps": 60,
}  # fmt: skip
"""Of the options whose default has changed since there are rows: what it was. A new option that changes results where
it is not given belongs here with the value that leaves them."""

_NO_RESULT = (
    "data", "titles", "title_column", "metrics_at", "seed", "device", "data_on", "table_on", "deterministic", "profile",
    "out", "init_weights", "from_run", "gone_items", "resume", "log_to",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training: a cell from one seed."""

    cell: Cell
    seed: int

    @property
    def key(self) -> tuple[str, str]:
        return self.cell.digest, str(self.seed)


_SASREC: Options = {"num_blocks": 2, "num_heads": 2, "dim": 128, "learning_rate": 1e-3, "warmup_steps": 100}

DATASETS = {
    data.name: data
    for data in (
        # The split leaves the authors' later period to the test: 128077 of 142556 sessions and 126168 of 130903 come
        # before it.
        Dataset(
            "nowplaying",
            15,
            _SASREC
            | {
                "split": "sessions",
                "split_quantile": 128077 / 142556,
                "max_length": 20,
                "batch_size": 512,
                "dropout": 0.3,
            },
        ),
        Dataset("amazon_beauty_full", 24, _SASREC | {"max_length": 50, "batch_size": 256, "dropout": 0.5}),
        Dataset(
            "retailrocket",
            20,
            _SASREC
            | {
                "split": "sessions",
                "split_quantile": 126168 / 130903,
                "max_length": 20,
                "batch_size": 512,
                "dropout": 0.3,
            },
        ),
        Dataset("git_commits", 30, _SASREC | {"max_length": 100, "batch_size": 128, "dropout": 0.3}),
        Dataset("complete_journey", 40, _SASREC | {"max_length": 200, "batch_size": 32, "dropout": 0.3}),
    )
}

K = 256

FULL = Method("CE", {"negatives": "all"})
INDEPENDENT = Method("CE-, independent", {"num_negatives": K, "group_size": 1})
GROUPED = Method("CE-, groups of 128", {"num_negatives": K, "group_size": 128})

METHODS = (
    FULL,
    GROUPED,
    INDEPENDENT,
    Method("CE-, groups of 32", {"num_negatives": K, "group_size": 32}),
    Method("CE-, groups of 128, rows in order", {"num_negatives": K, "group_size": 128, "shuffle_rows": False}),
    Method("CE-, groups of 32, rows in order", {"num_negatives": K, "group_size": 32, "shuffle_rows": False}),
    Method("CE-, one draw a batch", {"num_negatives": K}, one_draw=True),
    Method("BCE", {"loss": "bce", "num_negatives": 1, "group_size": 1}),
    Method("BCE+", {"loss": "bce", "num_negatives": K}),
    Method("gBCE", {"loss": "gbce", "num_negatives": K}),
    Method("SCE", {"loss": "sce"}),
    Method("popularity", {"negatives": "popularity", "num_negatives": K}),
    Method("popularity, uncorrected", {"negatives": "popularity", "num_negatives": K, "logq_correction": False}),
)

NEGATIVES = (16, 64, 256, 1024, 4096, 16384)
MOST_NEGATIVES = {"amazon_beauty_full": 32768}
"""Where full CE stays ahead longest; from `MOST_SEEDS` seeds, as full CE itself there, to tell a per cent."""

MOST_SEEDS = 12

SEEDS = (1, 2, 3)
PAIRED_SEEDS = {"nowplaying": 16, "amazon_beauty_full": 48}
"""Seeds of the two methods whose difference is to be known within about one per cent, by how far runs of a data set
differ."""

LONGER = 5
"""Times the epochs of binary losses, which learn slowly with many negatives."""


def grouped(num_negatives: int) -> Method:
    """Grouped CE- with another number of negatives; with `K` it is `GROUPED`."""
    if num_negatives == K:
        return GROUPED
    return Method(f"CE-, groups of 128, K={num_negatives}", {"num_negatives": num_negatives, "group_size": 128})


def longer(method: Method) -> Method:
    """``method`` as it is called with `LONGER` times the epochs."""
    return Method(f"{method.name}, {LONGER} times the epochs", method.options)


def loss_runs() -> Iterable[Run]:
    for seed in range(1, max(PAIRED_SEEDS.values()) + 1):
        for name, paired in PAIRED_SEEDS.items():
            for method in METHODS:
                if seed in SEEDS or (method in (GROUPED, INDEPENDENT) and seed <= paired):
                    yield Run(Cell(DATASETS[name], method), seed)


def longer_runs() -> Iterable[Run]:
    for name in PAIRED_SEEDS:
        epochs = LONGER * DATASETS[name].epochs
        for method in METHODS:
            if method.options.get("loss") in ("bce", "gbce"):
                changes = {"epochs": epochs, "patience": epochs, "eval_every": LONGER}
                yield Run(Cell(DATASETS[name], longer(method), changes), SEEDS[0])


def negative_runs() -> Iterable[Run]:
    for name in DATASETS:
        for seed in SEEDS:
            for method in (FULL, *map(grouped, NEGATIVES)):
                yield Run(Cell(DATASETS[name], method), seed)
    for name, most in MOST_NEGATIVES.items():
        for seed in range(1, MOST_SEEDS + 1):
            for method in (FULL, grouped(most)):
                yield Run(Cell(DATASETS[name], method), seed)


BATCHES, LENGTHS, BALANCED = (32, 128, 512), (50, 200), (256, 1024, 4096)
"""Users in a batch, items of a history and negatives, each of which is tried with each of the others."""

BALANCED_SETS = ("complete_journey", "git_commits")


def balanced(batch_size: int, num_negatives: int, max_length: int) -> Method:
    """Grouped CE- as it is called where the batch and the length of histories differ too."""
    return Method(f"CE-, {batch_size} users of {max_length}, K={num_negatives}", grouped(num_negatives).options)


def balance_runs() -> Iterable[Run]:
    """To convergence, at a learning rate that grows with the square root of the batch."""
    for name in BALANCED_SETS:
        for batch_size, max_length, num_negatives in itertools.product(BATCHES, LENGTHS, BALANCED):
            changes = {
                "batch_size": batch_size,
                "max_length": max_length,
                "learning_rate": 1e-3 * math.sqrt(batch_size / 128),
                "epochs": 200,
                "patience": 10,
            }
            yield Run(Cell(DATASETS[name], balanced(batch_size, num_negatives, max_length), changes), SEEDS[0])


TABLE_SETS = ("git_commits", "nowplaying", "retailrocket")

_FEW = {"num_negatives": 128}  # so that a step draws at most half of the smallest catalog

WHOLE_TABLE = Method("CE-, K=128, AdamW", _FEW)

TABLE_RATES = {
    "partial-rowwise-adam": (5e-4, 1e-3, 2e-3, 4e-3),
    "lazy-adam": (5e-4, 1e-3, 2e-3, 4e-3),
    "rowwise-adagrad": (0.01, 0.03, 0.1, 0.3),
}
"""Learning rates of the item table's own optimizers that are tried, around that of all else and Adagrad's default."""

TABLE_SEEDS = 8


def of_rows(optimizer: str, rate: float) -> Method:
    """Grouped CE- whose steps move the rows of the item table that they touch."""
    options = {**_FEW, "item_optimizer": optimizer, "item_learning_rate": rate}
    return Method(f"CE-, K=128, {optimizer} at {rate:g}", options)


def table_rate_runs() -> Iterable[Run]:
    for name in TABLE_SETS:
        for method in (WHOLE_TABLE, *(of_rows(each, rate) for each, rates in TABLE_RATES.items() for rate in rates)):
            yield Run(Cell(DATASETS[name], method), SEEDS[0])


BEST_TABLE_RATES: dict[str, dict[str, float]] = {
    "git_commits": {"partial-rowwise-adam": 0.0005, "lazy-adam": 0.001, "rowwise-adagrad": 0.03},
    "nowplaying": {"partial-rowwise-adam": 0.0005, "lazy-adam": 0.001, "rowwise-adagrad": 0.03},
    "retailrocket": {"partial-rowwise-adam": 0.004, "lazy-adam": 0.002, "rowwise-adagrad": 0.1},
}
"""Of `TABLE_RATES` those with the best validation NDCG@10 from one seed, by data set."""


def table_runs() -> Iterable[Run]:
    """Each optimizer at its best rate, beside AdamW, from several seeds."""
    for seed in range(1, TABLE_SEEDS + 1):
        for name, rates in BEST_TABLE_RATES.items():
            for method in (WHOLE_TABLE, *(of_rows(optimizer, rate) for optimizer, rate in rates.items())):
                yield Run(Cell(DATASETS[name], method), seed)

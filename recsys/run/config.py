"""The options of a training run: one declaration for both frameworks, the command line and the saved file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from ..data.datasets import DATASETS
from ..errors import ConfigError
from ..option_checks import check_type, require, require_schema
from ..protocol.cutoffs import check_protocol
from ..protocol.splits import NO_SPLIT, SPLITS
from .data_options import option
from .feature_choices import NUMERIC_USES, VECTOR_USES, check_features
from .item_optimizer import ITEM_OPTIMIZERS, TABLE_DTYPES, TABLE_PLACES, check_item_optimizer
from .log_choices import parse_loggers
from .loss_choices import GROUP_SIZES, LOSSES, NEGATIVES, check_loss, said_negatives, without_unused
from .loss_options import LossOptions
from .model_choices import MODELS, check_model
from .optimizer_choices import OPTIMIZERS, SCHEDULES, check_optimizer
from .start_choices import GONE_ITEMS, check_start

CHOICES: dict[str, tuple[str, ...]] = {
    "split": tuple(SPLITS),
    "numeric_as": NUMERIC_USES,
    "item_vectors_as": VECTOR_USES,
    "model": MODELS,
    "loss": LOSSES,
    "negatives": NEGATIVES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "item_optimizer": ITEM_OPTIMIZERS,
    "table_dtype": TABLE_DTYPES,
    "precision": ("fp32", "bf16"),
    "device": ("auto", "cpu", "cuda"),
    "data_on": ("auto", "device", "host"),
    "table_on": TABLE_PLACES,
    "impl": ("auto", "triton", "reference"),
    "gone_items": GONE_ITEMS,
}

SCHEMA = 3
"""Of config.json. 1 had no number, and none of the options accumulate, optimizer, schedule, momentum, clip_norm,
ema_decay, data_on, deterministic and profile; it is read with their defaults, which are what it did. Before 3 batches
were never grouped by length, and num_negatives and patience had numbers where nothing was drawn or validated."""

LEFT = "left_to_the_log"
"""Key in config.json of the options that were left to the log, which have what it told there."""

_ALWAYS_THERE = frozenset({"data", "split", "model", "dim", "loss", "seed", "out"})  # in files that a run wrote

PATHS = ("data", "titles", "items", "item_features", "item_vectors", "init_weights", "from_run", "out")
"""Options that name a file or a folder; ``data`` may name a data set instead."""

_LEAST: dict[str, int] = {
    "min_item_events": 1,
    "min_user_events": 1,
    "numeric_bins": 2,
    "item_vectors_dim": 0,
    "max_length": 0,
    "dim": 1,
    "num_blocks": 1,
    "num_heads": 1,
    "dropout": 0,
    "mask_probability": 0,
    "num_negatives": 0,
    "pool_size": 1,
    "popularity_power": 0,
    "frequency_rate": 0,
    "gbce_t": 0,
    "n_buckets": 0,
    "bucket_size_x": 0,
    "bucket_size_y": 1,
    "batch_size": 0,
    "accumulate": 1,
    "learning_rate": 0,
    "item_learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "momentum": 0,
    "clip_norm": 0,
    "ema_decay": 0,
    "epochs": 1,
    "patience": 0,
    "eval_every": 1,
    "test_users": 0,
    "seed": 0,
    "devices": 1,
}


@dataclass(frozen=True)
class TrainConfig(LossOptions):
    """Options of one training run, checked on construction (`ConfigError` names the option)."""

    batch_size: int = option(
        0,
        "Training",
        "Users in a batch. 0: 128, and fewer, from 16 on, where an epoch would have fewer than 32 batches.",
    )
    group_by_length: bool = option(
        True,
        "Training",
        "Put users with histories of like lengths into the same batches, whose rows are then shorter where users have "
        "few items: rows of up to three lengths, chosen from the log. Without it all rows have max_length places.",
    )
    accumulate: int = option(1, "Training", "Batches whose mean gradient makes one step of the optimizer.")
    optimizer: str = option(
        "adamw", "Training", "adamw, adam, adamax, rmsprop or sgd, as torch.optim and Optax have them."
    )
    learning_rate: float = option(1e-3, "Training", "Peak learning rate.")
    item_optimizer: str = option(
        "auto",
        "Training",
        "Of the item table. adamw: the optimizer moves all of it. rowwise-adagrad, partial-rowwise-adam, lazy-adam: "
        "each step moves the rows that it touches alone, at a cost that does not grow with the catalog. auto: that of "
        "the rest, and from 10 million items on partial-rowwise-adam.",
    )
    item_learning_rate: float = option(
        0.0, "Training", "Peak learning rate of the item table's own optimizer; 0: that of the rest."
    )
    table_dtype: str = option(
        "fp32",
        "Training",
        "Of the item table: fp32, or bf16 for half the memory, with an item_optimizer that moves rows alone, which "
        "rounds at random.",
    )
    schedule: str = option(
        "constant",
        "Training",
        "Learning rate after the warm-up: constant, or falling to 0 at the last epoch's end as a cosine or linear.",
    )
    warmup_steps: int = option(
        100,
        "Training",
        "Steps of the optimizer over which the learning rate rises from 0; none where its state is an earlier run's.",
    )
    weight_decay: float = option(0.0, "Training", "Decoupled weight decay of adamw; of the others an L2 term.")
    momentum: float = option(0.9, "Training", "sgd: momentum.")
    clip_norm: float = option(0.0, "Training", "Scale gradients down to this norm over all of them; 0: never.")
    ema_decay: float = option(
        0.0,
        "Training",
        "Validate, test and keep an exponential moving average of the weights with this decay; 0: the weights.",
    )
    epochs: int = option(100, "Training", "Most passes over the training users.")
    patience: int = option(
        0,
        "Training",
        "Stop after this many validations in a row without a better validation NDCG@10. 0: 10, and up to 50 where "
        "fewer than 10,000 users are validated, whose mean is noisy.",
    )
    eval_every: int = option(1, "Training", "Epochs from one validation to the next.")
    seed: int = option(0, "Training", "Seed of weights, batch order, masks, dropout and negatives.")

    metrics_at: str = option(
        "10", "Evaluation", "The k of the metrics at k, such as 5,10,20; must name 10, as NDCG@10 chooses."
    )
    filter_seen: bool = option(
        False,
        "Evaluation",
        "Leave the items of a user's history out of the ranking, except for the held-out item itself.",
    )
    test_users: int = option(
        0, "Evaluation", "Users that validation and test rank, chosen at random by the seed; 0: all of them."
    )

    precision: str = option("fp32", "Run", "fp32, or bf16 for mixed precision with fp32 weights.")
    device: str = option("auto", "Run", "cpu, cuda, or auto: cuda where there is one.")
    devices: int = option(
        1,
        "Run",
        "GPUs of this host that share the batches, with PyTorch a process each. It is left out under torchrun, which "
        "starts them itself. With JAX those of all hosts on which it was started together.",
    )
    data_on: str = option(
        "auto",
        "Run",
        "Where users' sequences are: device (batches are gathered there), host (batches are copied to it ahead of "
        "their steps), or auto: device where they take at most an eighth of its memory.",
    )
    table_on: str = option(
        "device",
        "Run",
        "Where the item table and its moments of the same shape are: device, or host for tables that a GPU's memory "
        "does not hold: in pinned memory of the host, with an item_optimizer that moves rows alone, which are read a "
        "step ahead. PyTorch only.",
    )
    deterministic: bool = option(
        False, "Run", "On CUDA the same bits in every run, by slower kernels of the framework's own where it has them."
    )
    profile: bool = option(
        False, "Run", "Write where the seconds went (profile.json) and a trace of some steps (folder trace)."
    )
    log_to: str | None = option(
        None, "Run", "Loggers beside metrics.csv: tensorboard, mlflow, wandb, several with commas, or none."
    )
    out: str = option("runs/sasrec", "Run", "Folder for checkpoints, weights, config.json and the metrics log.")
    init_weights: str | None = option(None, "Run", "Safetensors file of initial weights, written by either framework.")
    from_run: str | None = option(
        None,
        "Run",
        "Folder of an earlier run, of either framework, whose weights this run starts from: items are found by their "
        "ids, and new ones start from their vectors, else from the rows of the items beside theirs in histories.",
        flag="--from",
    )
    gone_items: str = option(
        "drop", "Run", "Items of the earlier run that the data no longer have: drop, or keep to recommend them still."
    )
    resume: bool = option(False, "Run", "Continue from the last checkpoint in the out folder.")

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check_type(field.name, getattr(self, field.name), hints[field.name])
        for name, choices in CHOICES.items():
            require(getattr(self, name) in choices, name, f"one of {', '.join(choices)}", getattr(self, name))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            require(math.isfinite(value) and value >= least, name, f"a number from {least} up", value)
        for name in ("dropout", "mask_probability", "momentum", "ema_decay"):
            require(getattr(self, name) < 1, name, "a number below 1", getattr(self, name))
        for name in ("learning_rate", "frequency_rate", "mask_probability"):
            require(getattr(self, name) > 0, name, "a number above 0", getattr(self, name))
        require(self.seed < 2**32, "seed", "an integer below 2**32", self.seed)
        require(self.group_size in GROUP_SIZES, "group_size", f"one of {GROUP_SIZES}", self.group_size)
        for name in ("frequency_rate", "gbce_t"):
            require(getattr(self, name) <= 1, name, "a number from 0 to 1", getattr(self, name))
        require(self.dim % self.num_heads == 0, "num_heads", f"a divisor of dim = {self.dim}", self.num_heads)
        columns = ("user_column", "item_column", "time_column", "rating_column", "title_column")
        for name in ("data", *columns, "from_run", "out"):
            require(getattr(self, name) != "", name, "a non-empty text", "an empty one")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, value in said_negatives(vars(self), defaults).items():
            object.__setattr__(self, name, value)
        check_model(vars(self), defaults)
        check_loss(vars(self), defaults)
        check_protocol(vars(self), defaults)
        check_features(vars(self), defaults)
        check_optimizer(vars(self), defaults)
        check_item_optimizer(vars(self), defaults)
        check_start(vars(self), defaults)
        parse_loggers(self.log_to)

    def located(self) -> TrainConfig:
        """The same with absolute paths, so that it holds in any working folder."""
        paths = {name: value for name in PATHS if (value := getattr(self, name)) is not None}
        if self.data in DATASETS:
            del paths["data"]
        return dataclasses.replace(self, **{name: os.path.abspath(path) for name, path in paths.items()})

    def to_json(self, left: Collection[str] = ()) -> str:
        """Every option and its value as an indented JSON object, with the number of its `SCHEMA` and, as `LEFT`, the
        names of those that were ``left`` to the log."""
        told = {LEFT: sorted(left)} if left else {}
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self), **told}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what `to_json` wrote, or somebody by hand; missing options get their defaults, unknown ones and those of
        a later `SCHEMA` raise `ConfigError`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"config: expected a JSON object, got text that is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigError(f"config: expected a JSON object, got {type(values).__name__}")
        values.pop(LEFT, None)
        by_hand = not values.keys() >= _ALWAYS_THERE
        schema = values.pop("schema", SCHEMA if by_hand else 1)
        require_schema("config", schema, SCHEMA)
        if schema < 3:
            values = {"group_by_length": False, **without_unused(values)}
            if values.get("train_on_valid") or values.get("split") == NO_SPLIT:
                values.pop("patience", None)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"config: unknown options {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Reads a file of `to_json`; raises `ConfigError` that names it."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: expected the options of a run, got: {error}") from error

"""Data, splits, batches, metrics and run configuration of sequential recommenders, without any framework."""

from __future__ import annotations

from .batches import IGNORE, MASK, PAD, Batch, EvalBatch, eval_batches, last_items, mean_targets, num_batches, train_batches
from .config import TrainConfig
from .datasets import DATASETS, load_dataset
from .errors import ConfigError, DataError, DownloadError
from .experiment import epoch_batches, loss_options, prepare_data
from .interactions import Interactions, read_interactions
from .masked_batches import masked_batches, mean_masked
from .metrics import hr_at_k, mrr_at_k, ndcg_at_k, ranking_metrics, target_ranks
from .metrics_log import MetricsLog, read_metrics_log
from .popularity import PopularityBaseline, item_counts, smoothed_frequencies
from .ragged import Ragged
from .splits import SPLITS, Split, global_temporal, leave_one_out, make_split

__all__ = [
    "DATASETS",
    "IGNORE",
    "MASK",
    "PAD",
    "SPLITS",
    "Batch",
    "ConfigError",
    "DataError",
    "DownloadError",
    "EvalBatch",
    "Interactions",
    "MetricsLog",
    "PopularityBaseline",
    "Ragged",
    "Split",
    "TrainConfig",
    "epoch_batches",
    "eval_batches",
    "global_temporal",
    "hr_at_k",
    "item_counts",
    "last_items",
    "leave_one_out",
    "load_dataset",
    "loss_options",
    "make_split",
    "masked_batches",
    "mean_masked",
    "mean_targets",
    "mrr_at_k",
    "ndcg_at_k",
    "num_batches",
    "prepare_data",
    "ranking_metrics",
    "read_interactions",
    "read_metrics_log",
    "smoothed_frequencies",
    "target_ranks",
    "train_batches",
]

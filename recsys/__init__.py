"""Data, splits, batches, metrics and run configuration of sequential recommenders, without any framework."""

from __future__ import annotations

from .baselines.choices import BASELINES, baseline_metrics
from .data.datasets import DATASETS, load_dataset
from .data.filters import keep_frequent, keep_rated
from .data.interactions import Interactions, read_interactions
from .data.ragged import Ragged
from .errors import ConfigError, DataError, DivergedError, DownloadError, RankError
from .protocol.batches import (
    IGNORE,
    MASK,
    PAD,
    Batch,
    EvalBatch,
    eval_batches,
    last_items,
    mean_targets,
    num_batches,
    train_batches,
)
from .protocol.cutoffs import parse_cutoffs
from .protocol.list_metrics import (
    NO_ITEM,
    MetricsTally,
    coverage_at_k,
    list_map_at_k,
    list_recall_at_k,
    self_information,
    surprisal_at_k,
)
from .protocol.masked_batches import masked_batches, mean_masked
from .protocol.metrics import hr_at_k, map_at_k, mrr_at_k, ndcg_at_k, ranking_metrics, recall_at_k, target_ranks
from .protocol.popularity import PopularityBaseline, item_counts, smoothed_frequencies
from .protocol.seen import SeenItems, fewest_unseen, seen_items
from .protocol.splits import SPLITS, Split, by_session, global_temporal, leave_one_out, make_split
from .run.config import TrainConfig
from .run.events import STOP, EpochEnded, RunEnded, RunFailed, RunStarted
from .run.experiment import epoch_batches, evaluation_options, loss_options, prepare_data
from .run.metrics_log import MetricsLog, read_metrics_log

__all__ = [
    "BASELINES",
    "DATASETS",
    "IGNORE",
    "MASK",
    "NO_ITEM",
    "PAD",
    "SPLITS",
    "STOP",
    "Batch",
    "ConfigError",
    "DataError",
    "DivergedError",
    "DownloadError",
    "EpochEnded",
    "EvalBatch",
    "Interactions",
    "MetricsLog",
    "MetricsTally",
    "PopularityBaseline",
    "Ragged",
    "RankError",
    "RunEnded",
    "RunFailed",
    "RunStarted",
    "SeenItems",
    "Split",
    "TrainConfig",
    "baseline_metrics",
    "by_session",
    "coverage_at_k",
    "epoch_batches",
    "eval_batches",
    "evaluation_options",
    "fewest_unseen",
    "global_temporal",
    "hr_at_k",
    "item_counts",
    "keep_frequent",
    "keep_rated",
    "last_items",
    "leave_one_out",
    "list_map_at_k",
    "list_recall_at_k",
    "load_dataset",
    "loss_options",
    "make_split",
    "map_at_k",
    "masked_batches",
    "mean_masked",
    "mean_targets",
    "mrr_at_k",
    "ndcg_at_k",
    "num_batches",
    "parse_cutoffs",
    "prepare_data",
    "ranking_metrics",
    "read_interactions",
    "read_metrics_log",
    "recall_at_k",
    "seen_items",
    "self_information",
    "smoothed_frequencies",
    "surprisal_at_k",
    "target_ranks",
    "train_batches",
]

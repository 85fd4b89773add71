"""The loss, sequence models and their training for PyTorch."""

from typing import TYPE_CHECKING, Any

from ..kernels import (
    AllItems,
    ArgumentError,
    ArgumentTypeError,
    ArgumentValueError,
    HardNegatives,
    History,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    fold_seed,
    negative_ids,
    shard_user_items,
    user_items,
)
from .loss.binary import sampled_linear_binary_cross_entropy
from .loss.catalog_shard import CatalogShard
from .loss.cross_entropy import linear_cross_entropy, sampled_linear_cross_entropy
from .loss.frequencies import update_frequencies
from .loss.modules import (
    LinearCrossEntropyLoss,
    SampledLinearBinaryCrossEntropyLoss,
    SampledLinearCrossEntropyLoss,
    ScalableLinearCrossEntropyLoss,
)
from .loss.scalable import scalable_linear_cross_entropy
from .loss.working_set import WorkingSet
from .tables.host_memory import HostMemoryError
from .tables.item_table import ItemTable
from .tables.optimizers import LazyAdam, PartialRowWiseAdam, RowWiseAdagrad
from .tables.read import rows_of
from .tables.row_set import RowSet, row_set
from .tables.shard_rows import input_rows
from .tables.working_set import working_set

if TYPE_CHECKING:
    from .recommender import Recommender

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "CatalogShard",
    "HardNegatives",
    "History",
    "HostMemoryError",
    "InBatchNegatives",
    "ItemTable",
    "LazyAdam",
    "LinearCrossEntropyLoss",
    "LogUniformNegatives",
    "MixedNegatives",
    "PartialRowWiseAdam",
    "PopularityNegatives",
    "Recommender",
    "RowSet",
    "RowWiseAdagrad",
    "SampledLinearBinaryCrossEntropyLoss",
    "SampledLinearCrossEntropyLoss",
    "ScalableLinearCrossEntropyLoss",
    "UniformNegatives",
    "WorkingSet",
    "fold_seed",
    "input_rows",
    "linear_cross_entropy",
    "negative_ids",
    "row_set",
    "rows_of",
    "sampled_linear_binary_cross_entropy",
    "sampled_linear_cross_entropy",
    "scalable_linear_cross_entropy",
    "shard_user_items",
    "update_frequencies",
    "user_items",
    "working_set",
]


def __getattr__(name: str) -> Any:
    if name == "Recommender":
        from .recommender import Recommender  # with all that trains and reads, which losses alone do without

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

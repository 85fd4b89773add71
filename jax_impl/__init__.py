"""The loss, sequence models and their training for JAX and Flax."""

from typing import TYPE_CHECKING, Any

from .. import interop as _interop  # noqa: F401  names the extra to install where JAX is missing
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
from .loss.scalable import scalable_linear_cross_entropy
from .loss.working_set import WorkingSet
from .tables.optimizers import LazyAdam, PartialRowWiseAdam, RowWiseAdagrad
from .tables.row_set import RowSet, row_set, rows_of
from .tables.shard_rows import input_rows
from .tables.working_set import working_set

if TYPE_CHECKING:
    from .recommender import Recommender
    from .tables.item_table import ItemTable

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "CatalogShard",
    "HardNegatives",
    "History",
    "InBatchNegatives",
    "ItemTable",
    "LazyAdam",
    "LogUniformNegatives",
    "MixedNegatives",
    "PartialRowWiseAdam",
    "PopularityNegatives",
    "Recommender",
    "RowSet",
    "RowWiseAdagrad",
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
    if name == "ItemTable":
        from .tables.item_table import ItemTable  # with Flax, which losses alone do without

        return ItemTable
    if name == "Recommender":
        from .recommender import Recommender  # with all that trains and reads, which losses alone do without

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

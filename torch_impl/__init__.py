"""The loss, sequence models and their training for PyTorch."""

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
    user_items,
)
from .loss.binary import sampled_linear_binary_cross_entropy
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
from .tables.working_set import working_set

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
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
    "RowSet",
    "RowWiseAdagrad",
    "SampledLinearBinaryCrossEntropyLoss",
    "SampledLinearCrossEntropyLoss",
    "ScalableLinearCrossEntropyLoss",
    "UniformNegatives",
    "WorkingSet",
    "fold_seed",
    "linear_cross_entropy",
    "negative_ids",
    "row_set",
    "rows_of",
    "sampled_linear_binary_cross_entropy",
    "sampled_linear_cross_entropy",
    "scalable_linear_cross_entropy",
    "update_frequencies",
    "user_items",
    "working_set",
]

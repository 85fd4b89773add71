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

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "HardNegatives",
    "History",
    "InBatchNegatives",
    "LinearCrossEntropyLoss",
    "LogUniformNegatives",
    "MixedNegatives",
    "PopularityNegatives",
    "SampledLinearBinaryCrossEntropyLoss",
    "SampledLinearCrossEntropyLoss",
    "ScalableLinearCrossEntropyLoss",
    "UniformNegatives",
    "fold_seed",
    "linear_cross_entropy",
    "negative_ids",
    "sampled_linear_binary_cross_entropy",
    "sampled_linear_cross_entropy",
    "scalable_linear_cross_entropy",
    "update_frequencies",
    "user_items",
]

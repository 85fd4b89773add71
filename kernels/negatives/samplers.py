"""The samplers that there are."""

from __future__ import annotations

from .base import Negatives
from .base import sampler_of as _sampler_of
from .hard import HardNegatives
from .in_batch import InBatchNegatives
from .mixed import MixedNegatives
from .uniform import AllItems, UniformNegatives
from .weighted import LogUniformNegatives, PopularityNegatives

Sampler = (
    UniformNegatives
    | AllItems
    | PopularityNegatives
    | LogUniformNegatives
    | InBatchNegatives
    | MixedNegatives
    | HardNegatives
)
SAMPLERS: tuple[type[Negatives], ...] = (
    UniformNegatives,
    AllItems,
    PopularityNegatives,
    LogUniformNegatives,
    InBatchNegatives,
    MixedNegatives,
    HardNegatives,
)


def sampler_of(text: str) -> Negatives:
    """The sampler that a ``Negatives.text`` stands for."""
    return _sampler_of(text, SAMPLERS)

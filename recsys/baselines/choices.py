"""Baselines by their names, and what they reach beside a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..data.interactions import Interactions
from ..data.ragged import Ragged
from ..errors import ConfigError
from ..protocol.metrics import ranking_metrics
from ..protocol.splits import Split
from .baseline import Baseline
from .ials import fit_ials, require_implicit
from .item_knn import ItemKnn
from .markov import Markov
from .popular import Popular, recent

BASELINES: dict[str, Callable[[Interactions, Split, int], Baseline]] = {
    "popularity": lambda interactions, split, seed: Popular(split.train, split.num_items),
    "recent": lambda interactions, split, seed: recent(interactions, split),
    "markov": lambda interactions, split, seed: Markov(split.train, split.num_items),
    "itemknn": lambda interactions, split, seed: ItemKnn(split.train, split.num_items),
    "ials": lambda interactions, split, seed: fit_ials(split, seed),
}
"""What makes each baseline of events, their split and a seed, by name; ``recent:30`` is `recent` of 30 days."""

_RECENT = re.compile(r"recent:([1-9]\d{0,4})", re.ASCII)


def check_baselines(names: Sequence[str]) -> tuple[str, ...]:
    """The ``names``; raises ``ConfigError`` for others than those of `BASELINES` and ``recent:DAYS``, for one that comes
    twice, and for ials without the package implicit."""
    if isinstance(names, str):
        raise ConfigError(f"baselines: expected a list of names, got {names!r}")
    for name in names:
        if not isinstance(name, str) or not (name in BASELINES or _RECENT.fullmatch(name)):
            raise ConfigError(f"baselines: expected some of {', '.join(BASELINES)}, recent:DAYS, got {name!r}")
    if len(set(names)) < len(names):
        raise ConfigError(f"baselines: expected each once, got {','.join(names)}")
    if "ials" in names:
        require_implicit()
    return tuple(names)


def baseline_metrics(
    names: Sequence[str],
    interactions: Interactions,
    split: Split,
    histories: Ragged,
    targets: npt.NDArray[np.integer],
    *,
    cutoffs: Sequence[int] = (10,),
    filter_seen: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """`ranking_metrics` at ``cutoffs`` of each baseline of ``names``, by name, made of the training rows of a ``split``
    of ``interactions`` alone.

    Ranks the ``targets`` (B,) after their ``histories``, whole ones, among all items; ``filter_seen`` leaves a history's
    items out, except for the target. ``seed`` is that of ``ials``, whose alpha the split's validation targets choose.
    Raises what `check_baselines` raises.
    """
    found: dict[str, dict[str, float]] = {}
    for name in check_baselines(names):
        days = _RECENT.fullmatch(name)
        baseline = recent(interactions, split, int(days[1])) if days else BASELINES[name](interactions, split, seed)
        found[name] = ranking_metrics(baseline.ranks(histories, targets, filter_seen=filter_seen), cutoffs)
    return found

"""Baselines by their names, and what they reach beside a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
from .popular import DAYS, Popular, recent
from .vsknn import Vsknn, last_times

BASELINES = ("popularity", "recent", "markov", "itemknn", "vsknn", "ials")
"""The names of baselines; ``recent`` counts the last 7 days, ``recent:30`` the last 30."""

_RECENT = re.compile(r"recent(?::([1-9]\d{0,4}))?", re.ASCII)


def check_baselines(names: Sequence[str]) -> tuple[str, ...]:
    """The ``names``; raises ``ConfigError`` for others than `BASELINES` and ``recent:DAYS``, for one that comes twice,
    and for ials without the package implicit."""
    if isinstance(names, str):
        raise ConfigError(f"baselines: expected a list of names, got {names!r}")
    for name in names:
        if not isinstance(name, str) or not (name in BASELINES or _RECENT.fullmatch(name)):
            raise ConfigError(f"baselines: expected some of {', '.join(BASELINES)} (or recent:DAYS), got {name!r}")
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
    """`ranking_metrics` at ``cutoffs`` of each baseline of ``names`` (`BASELINES`), by name, made of the training rows
    of a ``split`` of ``interactions``.

    Ranks the ``targets`` (B,) after their whole ``histories``, B rows, among all items; ``filter_seen`` leaves the
    items of a history out, except for the target. ``seed`` is that of ``ials``, whose alpha is chosen on the split's
    validation targets. Raises ``ConfigError`` for unknown and repeated names, ``ials`` without the package implicit,
    ``recent`` of numbers that are no times, ``recent`` and ``vsknn`` of a split that does not know which of the
    ``interactions`` it trains on, and targets that are no items.
    """
    names = check_baselines(names)
    if any(_by_time(name) for name in names) and (
        split.in_train is None or len(split.in_train) != len(interactions.time)
    ):
        got = "none" if split.in_train is None else f"those of {len(split.in_train)}"
        raise ConfigError(f"split: expected in_train of the {len(interactions.time)} events, got {got}")
    for name in names:  # before minutes of others
        if days := _RECENT.fullmatch(name):
            recent(interactions, split, int(days[1] or DAYS))
    found: dict[str, dict[str, float]] = {}
    for name in names:
        baseline = _fit(name, interactions, split, filter_seen=filter_seen, seed=seed)
        found[name] = ranking_metrics(baseline.ranks(histories, targets, filter_seen=filter_seen), cutoffs)
    return found


def _by_time(name: str) -> bool:
    return name == "vsknn" or _RECENT.fullmatch(name) is not None


def _fit(name: str, interactions: Interactions, split: Split, *, filter_seen: bool, seed: int) -> Baseline:
    if days := _RECENT.fullmatch(name):
        return recent(interactions, split, int(days[1] or DAYS))
    if name == "ials":
        return fit_ials(split, filter_seen=filter_seen, seed=seed)
    if name == "vsknn":
        assert split.in_train is not None
        last = last_times(split.train, interactions.time[split.in_train])
        return Vsknn(split.train, last, split.num_items)
    return {"popularity": Popular, "markov": Markov, "itemknn": ItemKnn}[name](split.train, split.num_items)

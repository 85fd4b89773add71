"""What ends a training that diverges, and what keeps its numbers out of the results."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cce_minus.recsys import ConfigError, DivergedError
from cce_minus.recsys.run import losses as losses_module
from cce_minus.recsys.run.losses import EpochLosses, require_finite_weights
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.progress import Progress
from cce_minus.recsys.run.weights_file import read_weights, write_weights


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_step_that_is_not_finite_is_named(bad: float):
    losses = EpochLosses(3, 30, lambda portions: lambda: np.concatenate(portions))
    for portion in ([1.0, 2.0], [bad, 1.0, math.nan]):
        losses.add(portion, len(portion))
    with pytest.raises(DivergedError, match=rf"got {bad} in epoch 3, step 2 \(step 32 of the run"):
        losses.mean()()


def test_losses_are_fetched_now_and_then(monkeypatch: pytest.MonkeyPatch):
    """A long epoch ends soon after its loss has become NaN, and steps in between wait for nothing."""
    monkeypatch.setattr(losses_module, "FETCH_EVERY", 4)
    fetched: list[list[list[float]]] = []

    def fetch(portions: list[list[float]]) -> Callable[[], npt.NDArray]:
        fetched.append(portions)
        return lambda: np.concatenate(portions)

    losses = EpochLosses(0, 0, fetch)
    for loss in range(0, 10, 2):
        losses.add([float(loss), loss + 1.0], 2)
    assert fetched == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert losses.mean()() == 4.5
    losses.add([math.nan, 1.0, 1.0], 3)
    with pytest.raises(DivergedError, match="step 10 "):
        losses.add([1.0], 1)


def test_weights_that_are_not_finite_end_a_training():
    require_finite_weights(3.0, 0)
    for largest in (math.nan, math.inf):
        with pytest.raises(DivergedError, match="weights: expected finite numbers after epoch 7"):
            require_finite_weights(largest, 7)


def test_metrics_of_nan_are_never_the_best():
    progress = Progress()
    assert not progress.update(1.0, {"ndcg@10": math.nan}, 1.0)
    assert progress.update(1.0, {"ndcg@10": 0.0}, 1.0)
    assert not progress.update(1.0, {"ndcg@10": math.nan}, 1.0)
    assert progress.best_epoch == 1


def test_a_weights_file_with_nan_is_refused(tmp_path: Path):
    config = ModelConfig(num_items=3, dim=2, num_heads=1)
    for bad in (math.nan, math.inf):
        write_weights(tmp_path / "w.safetensors", config, {"table": np.array([1, bad], np.float32)})
        with pytest.raises(ConfigError, match="tensor table: expected finite numbers"):
            read_weights(tmp_path / "w.safetensors", config, {"table": (2,)})

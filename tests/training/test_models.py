"""Runs of the models beside SASRec, each with the batches that it is trained on: they learn and resume like
SASRec's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, TrainConfig
from safetensors.numpy import load_file

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]

OPTIONS: dict[str, dict[str, Any]] = {
    "ligr": {"max_length": 6},
    "bert4rec": {"max_length": 6, "mask_probability": 0.3},
}


@pytest.fixture(scope="session")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 users who walk round 40 items in steps of 1: an item follows from either neighbour."""
    rng = np.random.default_rng(0)
    items = (rng.integers(0, 40, 200)[:, None] + np.arange(12)) % 40
    path = tmp_path_factory.mktemp("data") / "circle.parquet"
    times = np.tile(np.arange(12), 200)
    pq.write_table(
        pa.table({"user_id": np.repeat(np.arange(200), 12), "item_id": items.ravel(), "timestamp": times}), path
    )
    return path


@pytest.mark.parametrize(("model", "epochs"), [("ligr", 4), ("bert4rec", 10)])
def test_models_learn(train: Train, make_config: Make, circle: Path, model: str, epochs: int):
    result = train(make_config(data=str(circle), model=model, epochs=epochs, eval_every=epochs, **OPTIONS[model]))
    assert result.losses[-1] < result.losses[0] - 0.5
    assert result.test["ndcg@10"] > 0.25  # chance is about 0.11


@pytest.mark.parametrize("model", OPTIONS)
def test_resumed_runs_equal_uninterrupted_ones(train: Train, make_config: Make, model: str):
    options = {"model": model, **OPTIONS[model]}
    whole = train(make_config(out="whole", epochs=2, **options))
    train(make_config(out="parts", epochs=1, **options))
    parts = train(make_config(out="parts", epochs=2, resume=True, **options))
    assert (parts.losses, parts.test) == (whole.losses, whole.test)
    expected = load_file(whole.weights)
    for name, tensor in load_file(parts.weights).items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    assert json.loads((Path(parts.weights).parent / "config.json").read_text())["model"] == model


def test_another_model_neither_resumes_nor_takes_the_weights(make_config: Make):
    from cce_minus.torch_impl.train import train

    first = train(make_config(epochs=1, model="ligr"))
    with pytest.raises(ConfigError, match="model: expected 'ligr' as in the run to resume, got 'bert4rec'"):
        train(make_config(epochs=2, model="bert4rec", resume=True))
    with pytest.raises(ConfigError, match="config model: expected sasrec, got ligr"):
        train(make_config(out="other", epochs=1, init_weights=first.weights))

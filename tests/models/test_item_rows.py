"""Models whose items have features: their rows against NumPy, the same in both frameworks, and nothing new without
features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cce_minus.recsys import ConfigError, Ragged
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.side_information import SideInformation
from safetensors.numpy import load_file

V, P, D = 37, 5, 16


@pytest.fixture
def side() -> SideInformation:
    rng = np.random.default_rng(3)
    return SideInformation(
        (rng.normal(size=(V, P)) * 10).astype(np.float32), rng.normal(size=(V, D)).astype(np.float32)
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def item_rows(framework: Any, model: Any) -> np.ndarray:
    rows = model.item_rows()
    return np.asarray(rows) if framework.name == "jax" else rows.detach().numpy()


def test_rows_are_the_table_and_the_projected_features(framework: Any, side: SideInformation, file: Path):
    model = framework.build(num_features=P)
    model.start_items(side)
    framework.save(model, file)
    tensors = load_file(file)
    assert tensors["feature_projection"].shape == (P, D)
    assert 0.01 < tensors["feature_projection"].std() < 0.03
    np.testing.assert_array_equal(tensors["item_features"], side.features)
    assert side.initial is not None
    np.testing.assert_allclose(tensors["item_table"], 0.02 * side.initial, rtol=1e-6)
    expected = tensors["item_table"] + side.features.astype(np.float64) @ tensors["feature_projection"]
    np.testing.assert_allclose(item_rows(framework, model), expected, rtol=1e-5, atol=1e-6)


def test_without_features_rows_are_the_table(framework: Any, file: Path):
    model = framework.build()
    framework.save(model, file)
    tensors = load_file(file)
    np.testing.assert_array_equal(item_rows(framework, model), tensors["item_table"])
    assert not {"item_features", "feature_projection"} & set(tensors)
    if framework.name == "torch":
        assert model.item_rows() is model.item_table


def test_features_change_no_other_initial_weight(framework: Any, file: Path):
    tensors = []
    for features in (0, P):
        framework.save(framework.build(num_features=features), file)
        tensors.append(load_file(file))
    for name, tensor in tensors[0].items():
        np.testing.assert_array_equal(tensors[1][name], tensor, err_msg=name)


def test_rows_are_what_is_seen_and_what_is_scored(
    framework: Any, model_name: str, side: SideInformation, sequences: np.ndarray, file: Path, tmp_path: Path
):
    from cce_minus.recsys.run.weights_file import write_weights

    model, plain = framework.build(num_features=P, model=model_name), framework.build(model=model_name)
    model.start_items(side)
    framework.save(model, file)
    # A model without features whose table holds the same rows must do the same.
    tensors = load_file(file)
    tensors["item_table"] = item_rows(framework, model)
    del tensors["item_features"], tensors["feature_projection"]
    write_weights(tmp_path / "plain.safetensors", plain.config, tensors)
    framework.load(plain, tmp_path / "plain.safetensors")
    # XLA fuses the sum of table and features with what follows on a GPU, and rounds otherwise
    atol = 1e-5 if framework.name == "jax" and jax.default_backend() == "gpu" else 0
    for call in (framework.hidden, framework.next_item_hidden):
        np.testing.assert_allclose(call(model, sequences), call(plain, sequences), rtol=0, atol=atol)
    histories, targets = Ragged.from_rows([[1, 2, 3], [4], list(range(30))]), np.array([5, 6, 7], np.int32)
    np.testing.assert_array_equal(framework.recommend(model, histories, V), framework.recommend(plain, histories, V))
    assert framework.evaluate(model, histories, targets) == framework.evaluate(plain, histories, targets)


def test_both_frameworks_do_the_same_with_features(
    framework: Any, other: Any, model_name: str, side: SideInformation, sequences: np.ndarray, file: Path
):
    model, twin = (f.build(seed=seed, num_features=P, model=model_name) for seed, f in enumerate((framework, other)))
    model.start_items(side)
    framework.save(model, file)
    written = file.read_bytes()
    other.load(twin, file)
    np.testing.assert_allclose(other.hidden(twin, sequences), framework.hidden(model, sequences), rtol=0, atol=2e-5)
    histories = [[1, 2, 3], [4], list(range(30))]
    np.testing.assert_array_equal(other.recommend(twin, histories, 9), framework.recommend(model, histories, 9))
    other.save(twin, file)
    assert file.read_bytes() == written


def test_another_number_of_features_is_named(framework: Any, file: Path):
    framework.save(framework.build(num_features=P), file)
    with pytest.raises(ConfigError, match=r"weights.safetensors: config num_features: expected 0, got 5"):
        framework.load(framework.build(), file)
    with pytest.raises(ConfigError, match=r"num_features: expected an integer from 0 up, got -1"):
        ModelConfig(num_items=3, num_features=-1)

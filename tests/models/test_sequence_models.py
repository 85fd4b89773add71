"""The sequence models: the same in two frameworks, causal where they are meant to be, indifferent to padding, finite
everywhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.recsys import ConfigError
from cce_minus.recsys.run.model_config import ModelConfig
from flax import nnx

from tests.models.conftest import CAUSAL


def test_same_weights_give_the_same_hidden_states(
    framework: Any, model_name: str, other: Any, sequences: np.ndarray, tmp_path
):
    model, twin = framework.build(seed=1, model=model_name), other.build(seed=2, model=model_name)
    assert np.abs(framework.hidden(model, sequences) - other.hidden(twin, sequences)).max() > 0.1
    framework.save(model, tmp_path / "weights.safetensors")
    other.load(twin, tmp_path / "weights.safetensors")
    np.testing.assert_allclose(other.hidden(twin, sequences), framework.hidden(model, sequences), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_name", CAUSAL)
def test_the_future_does_not_change_the_past(framework: Any, model_name: str, sequences: np.ndarray):
    model, changed = framework.build(model=model_name), sequences.copy()
    changed[0, 7:] = (changed[0, 7:] + 1) % 37
    before, after = framework.hidden(model, sequences), framework.hidden(model, changed)
    np.testing.assert_array_equal(after[0, :7], before[0, :7])
    assert (np.abs(after[0, 7:] - before[0, 7:]).max(axis=-1) > 1e-4).all()


def test_the_past_changes_the_future(framework: Any, model_name: str, sequences: np.ndarray):
    model, changed = framework.build(model=model_name), sequences.copy()
    changed[0, 0] = (changed[0, 0] + 1) % 37
    difference = np.abs(framework.hidden(model, changed) - framework.hidden(model, sequences))[0].max(axis=-1)
    assert (difference > 0).all()


def test_left_padding_does_not_change_hidden_states(framework: Any, model_name: str, sequences: np.ndarray):
    model = framework.build(model=model_name)
    short = framework.hidden(model, np.ascontiguousarray(sequences[:, 5:]))
    np.testing.assert_allclose(framework.hidden(model, sequences)[1:3, 5:], short[1:3], rtol=0, atol=1e-6)


def test_other_rows_do_not_change_a_row(framework: Any, model_name: str, sequences: np.ndarray):
    model = framework.build(model=model_name)
    alone = framework.hidden(model, sequences[1:2])
    np.testing.assert_allclose(framework.hidden(model, sequences)[1:2], alone, rtol=0, atol=1e-6)


def test_gradients_are_finite_with_rows_of_padding(framework: Any, model_name: str, sequences: np.ndarray):
    model = framework.build(model=model_name)
    if framework.name == "torch":
        model.train()
        model(torch.from_numpy(sequences)).square().sum().backward()
        gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    else:

        def energy(model: Any) -> Any:
            return jnp.square(model(jnp.asarray(sequences), rngs=nnx.Rngs(dropout=0))).sum()

        flat = nnx.to_flat_state(nnx.jit(nnx.grad(energy))(model))
        gradients = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
    absent = np.setdiff1d(np.arange(37), sequences)
    assert not gradients["item_table"][absent].any()
    assert gradients["item_table"][sequences[0]].any(axis=-1).all()


def test_initial_weights_have_the_same_distribution(framework: Any, model_name: str, tmp_path):
    from safetensors.numpy import load_file

    framework.save(framework.build(num_items=2000, model=model_name), tmp_path / "weights.safetensors")
    for name, tensor in load_file(tmp_path / "weights.safetensors").items():
        if name.endswith("bias"):
            assert not tensor.any(), name
        elif "norm" in name:
            assert (tensor == 1).all(), name
        elif name == "mask_vector":  # 16 numbers: five standard errors of their mean square
            assert 0 < np.square(tensor / 0.02).mean() < 1 + 5 * np.sqrt(2 / 16)
        else:
            assert abs(tensor.std() - 0.02) < 0.003, name
            assert abs(tensor.mean()) < 0.004, name


def test_dropout_acts_in_training_only(framework: Any, model_name: str, sequences: np.ndarray):
    model = framework.build(model=model_name)
    quiet = framework.hidden(model, sequences)
    np.testing.assert_array_equal(quiet, framework.hidden(model, sequences))
    if framework.name == "torch":
        noisy = torch_training_pass(model, sequences)
    else:
        noisy = np.asarray(model(jnp.asarray(sequences), rngs=nnx.Rngs(dropout=1)))
    assert np.abs(noisy - quiet).max() > 0.1


def torch_training_pass(model: Any, sequences: np.ndarray) -> np.ndarray:
    model.train()
    return model(torch.from_numpy(sequences)).detach().numpy()


def test_bf16_is_close_to_fp32(framework: Any, model_name: str, sequences: np.ndarray, tmp_path):
    model = framework.build(model=model_name)
    exact = framework.hidden(model, sequences)
    if framework.name == "torch":
        with torch.autocast("cpu", torch.bfloat16):
            rounded = framework.hidden(model, sequences)
    else:
        from cce_minus.jax_impl.models import build_model

        half = build_model(model.config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
        framework.save(model, tmp_path / "weights.safetensors")
        framework.load(half, tmp_path / "weights.safetensors")
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(half, nnx.Param)))} == {
            jnp.dtype(jnp.float32)
        }
        rounded = framework.hidden(half, sequences)
    assert rounded.dtype == np.float32
    difference = np.abs(rounded - exact).max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize("model_name", CAUSAL)
def test_the_last_place_predicts_the_next_item(framework: Any, model_name: str, sequences: np.ndarray):
    model = framework.build(model=model_name)
    expected = framework.hidden(model, sequences)[:, -1]
    # the last block computes it alone, which rounds in another order
    np.testing.assert_allclose(framework.next_item_hidden(model, sequences), expected, rtol=0, atol=1e-6)


def test_left_padding_does_not_change_predictions(framework: Any, model_name: str, sequences: np.ndarray):
    model = framework.build(model=model_name)
    short = framework.next_item_hidden(model, np.ascontiguousarray(sequences[1:3, 5:]))
    np.testing.assert_allclose(framework.next_item_hidden(model, sequences)[1:3], short, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(12,), (2, 13), (2, 3, 4)])
def test_inputs_of_a_wrong_shape_are_named(framework: Any, model_name: str, shape: tuple[int, ...]):
    model = framework.build(model=model_name)
    for call in (framework.hidden, framework.next_item_hidden):
        with pytest.raises(ValueError, match=r"inputs: expected shape \(B, L\) with L <= 12, got"):
            call(model, np.zeros(shape, np.int32))


@pytest.mark.parametrize("wrong", ["bert4rec", "ligr"])
def test_a_class_refuses_the_configuration_of_another_model(wrong: str):
    from cce_minus.jax_impl.models.sasrec import SASRec as JaxSASRec
    from cce_minus.torch_impl.models.sasrec import SASRec as TorchSASRec

    config = ModelConfig(num_items=5, model=wrong, max_length=4, dim=2)
    for build in (lambda: TorchSASRec(config), lambda: JaxSASRec(config, rngs=nnx.Rngs(0))):
        with pytest.raises(ConfigError, match=f"model: expected sasrec, got {wrong}"):
            build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "dim: expected a multiple of num_heads=3, got 16"),
        ({"dropout": 1.0}, "dropout: expected a number in"),
        ({"num_items": 0}, "num_items: expected a positive integer, got 0"),
        ({"model": "gru4rec"}, "model: expected one of sasrec, bert4rec, ligr, got gru4rec"),
        ({"model": "bert4rec", "max_length": 1}, "max_length: expected at least 2 with model = bert4rec, got 1"),
    ],
)
def test_impossible_sizes_are_named(framework: Any, change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        framework.build(**change)

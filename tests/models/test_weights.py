"""The weights file: bit for bit both ways, and a clear error for every way in which it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.models.conftest import rewrite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def test_round_trip_through_both_frameworks_is_bitwise(framework: Any, other: Any, model_name: str, file: Path):
    framework.save(framework.build(seed=3, model=model_name), file)
    written = file.read_bytes()
    for reader in (framework, other):
        model = reader.build(seed=4, model=model_name)
        reader.load(model, file)
        reader.save(model, file)
        assert file.read_bytes() == written
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_names_and_layout_are_torch_like(framework: Any, file: Path):
    framework.save(framework.build(), file)
    tensors = load_file(file)
    assert tensors["item_table"].shape == (37, 16)
    assert tensors["position_table"].shape == (12, 16)
    assert tensors["blocks.1.attention.qkv.weight"].shape == (48, 16)
    assert tensors["blocks.0.feed_forward.contract.weight"].shape == (16, 64)
    assert tensors["final_norm.weight"].shape == (16,)
    assert len(tensors) == 2 + 2 * 12 + 2
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_models_of_other_parts_name_them_alike(framework: Any, file: Path):
    framework.save(framework.build(model="bert4rec"), file)
    tensors = load_file(file)
    assert tensors["mask_vector"].shape == (16,)
    assert len(tensors) == 2 + 2 * 12 + 2 + 1
    framework.save(framework.build(model="ligr"), file)
    tensors = load_file(file)
    assert tensors["blocks.0.attention_gate.weight"].shape == (16, 16)
    assert tensors["blocks.1.feed_forward_gate.bias"].shape == (16,)
    assert tensors["blocks.1.feed_forward.gate.weight"].shape == (64, 16)
    assert len(tensors) == 2 + 2 * (12 + 6) + 2


def test_another_dropout_rate_may_load_the_file(framework: Any, file: Path):
    framework.save(framework.build(dropout=0.5), file)
    framework.load(framework.build(dropout=0.0), file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert4rec"}, "config model: expected bert4rec, got sasrec"),
        ({"model": "ligr"}, "config model: expected ligr, got sasrec"),
        ({"num_items": 38}, "config num_items: expected 38, got 37"),
        ({"num_heads": 4}, "config num_heads: expected 4, got 2"),
        ({"num_blocks": 1}, "config num_blocks: expected 1, got 2"),
    ],
)
def test_another_configuration_is_named(framework: Any, file: Path, change: dict[str, Any], message: str):
    framework.save(framework.build(), file)
    with pytest.raises(ValueError, match=f"weights.safetensors: {message}"):
        framework.load(framework.build(**change), file)


def test_missing_unknown_and_misshapen_tensors_are_named(framework: Any, file: Path):
    framework.save(framework.build(), file)
    tensors = load_file(file)
    target = framework.build(seed=9)
    name = "blocks.0.attention.qkv.weight"
    cases = [
        ({key: value for key, value in tensors.items() if key != name}, "no such tensor"),
        (tensors | {name: tensors[name].T.copy()}, r"float32 \(16, 48\)"),
        (tensors | {name: tensors[name].astype(np.float16)}, r"float16 \(48, 16\)"),
    ]
    for changed, got in cases:
        rewrite(file, changed)
        with pytest.raises(ValueError, match=rf"tensor {name}: expected float32 \(48, 16\), got {got}"):
            framework.load(target, file)
    rewrite(file, tensors | {"stray": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"tensor stray: expected no such tensor, got float32 \(3,\)"):
        framework.load(target, file)


def test_a_failed_load_changes_nothing(framework: Any, file: Path, sequences: np.ndarray):
    framework.save(framework.build(seed=1), file)
    rewrite(file, {key: value for key, value in load_file(file).items() if key != "final_norm.bias"})
    model = framework.build(seed=2)
    before = framework.hidden(model, sequences)
    with pytest.raises(ValueError, match=r"final_norm\.bias"):
        framework.load(model, file)
    np.testing.assert_array_equal(framework.hidden(model, sequences), before)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_an_unreadable_file_is_named(framework: Any, file: Path, content: bytes | None):
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors: expected a safetensors file"):
        framework.load(framework.build(), file)

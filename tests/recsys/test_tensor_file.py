"""Tensors in files, by their pieces, beside the package safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.jax_impl.stored import array_of
from cce_minus.jax_impl.stored import stored as jax_stored
from cce_minus.recsys.run import tensor_file
from cce_minus.recsys.run.tensor_file import Stored, open_tensor_file, row_ranges, write_tensor_file
from cce_minus.torch_impl.stored import fill
from cce_minus.torch_impl.stored import stored as torch_stored
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
SHAPES = ((), (1,), (0,), (7,), (0, 3), (5, 0), (300, 9), (3, 4, 5))


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        f"{dtype} {shape}": (torch.randn(shape) * 5).to(getattr(torch, dtype)) for dtype in DTYPES for shape in SHAPES
    }


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensor_file, "PIECE", 100)


def test_files_are_those_of_safetensors(tmp_path: Path):
    given, metadata = tensors(), {"config": '{"a": "ä"}', "empty": ""}
    write_tensor_file(tmp_path / "ours", {name: torch_stored(tensor) for name, tensor in given.items()}, metadata)
    save_file(given, tmp_path / "theirs", metadata)
    found = load_file(tmp_path / "ours")
    with safe_open(tmp_path / "ours", framework="pt") as file:
        assert file.metadata() == metadata
    for path in (tmp_path / "ours", tmp_path / "theirs"):
        told, read = open_tensor_file(path)
        assert told == metadata
        assert read.keys() == given.keys() == found.keys()
        for name, tensor in given.items():
            assert torch.equal(found[name], tensor), name
            other = torch.empty_like(tensor)
            fill(other, read[name])
            assert torch.equal(other, tensor), name
            assert (read[name].dtype, read[name].shape) == (str(tensor.dtype)[6:], tuple(tensor.shape))


def test_arrays_of_jax_come_back(tmp_path: Path):
    given = {
        name: jnp.asarray(t.float().numpy(), str(t.dtype)[6:]) for name, t in tensors().items() if "64" not in name
    }
    write_tensor_file(tmp_path / "file", {name: jax_stored(array) for name, array in given.items()}, {})
    for name, tensor in open_tensor_file(tmp_path / "file")[1].items():
        found = array_of(tensor)
        assert found.dtype == given[name].dtype
        np.testing.assert_array_equal(found, given[name])


def test_no_piece_is_larger_than_said(tmp_path: Path):
    asked = []

    def pieces() -> Iterator[np.ndarray]:
        for first, end in row_ranges((1000, 5), 4):
            asked.append(end - first)
            yield np.full((end - first, 5), first, np.float32)

    write_tensor_file(tmp_path / "file", {"table": Stored("float32", (1000, 5), pieces)}, {})
    assert set(asked) == {5}
    read = open_tensor_file(tmp_path / "file")[1]["table"]
    assert max(piece.nbytes for piece in read.pieces()) == 100
    assert [int(piece[0, 0]) for piece in read.pieces()] == list(range(0, 1000, 5))


def test_a_file_is_read_to_its_end_while_another_takes_its_place(tmp_path: Path):
    path = tmp_path / "file"
    for number, name in enumerate(("file", "new")):
        write_tensor_file(tmp_path / name, {"table": Stored.of(np.full((90, 4), number, np.float32))}, {})
    pieces = iter(open_tensor_file(path)[1]["table"].pieces())
    first = next(pieces)
    (tmp_path / "new").replace(path)
    assert np.concatenate([first, *pieces]).max() == 0
    assert open_tensor_file(path)[1]["table"].array().min() == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_found(dtype: str, bad: float):
    tensor = torch.full((90, 4), torch.finfo(getattr(torch, dtype)).max, dtype=getattr(torch, dtype))
    assert torch_stored(tensor).is_finite()
    tensor[88, 3] = bad
    assert not torch_stored(tensor).is_finite()


def test_what_is_no_such_file_is_refused(tmp_path: Path):
    path = tmp_path / "file"
    write_tensor_file(path, {"table": Stored.of(np.zeros((3, 4), np.float32))}, {})
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[:-1], whole + b"\0", b"\xff" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises((SafetensorError, ValueError)):
            open_tensor_file(path)
    header = json.dumps({"a": {"dtype": "F8_E5M2", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(SafetensorError, match="tensor a of dtype F8_E5M2"):
        open_tensor_file(path)

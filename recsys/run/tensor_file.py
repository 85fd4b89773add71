"""Files of tensors in the safetensors format, written and read in pieces: a table of many gigabytes is nowhere in the
host's memory as a whole.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length, the header in JSON, the
tensors' bytes one after the other. The package safetensors checks what is read, and reads what is written here.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

PIECE = 2**28
"""Bytes that are in memory at once, about."""

_TAGS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_DTYPES = {tag: dtype for dtype, tag in _TAGS.items()}
_ALIGNMENT = 8  # of the tensors' bytes


@dataclass(frozen=True)
class Stored:
    """A tensor of ``shape`` by its rows: ``pieces()`` are contiguous arrays of them, in order.

    ``dtype`` is NumPy's name, or "bfloat16", of which pieces are the words in uint16.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]

    @classmethod
    def of(cls, array: np.ndarray | Stored) -> Stored:
        """An array in memory."""
        if isinstance(array, Stored):
            return array
        array = np.asarray(array, order="C")
        return cls(array.dtype.name, array.shape, lambda: [array])

    @property
    def numpy_dtype(self) -> np.dtype:
        """Of the pieces."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.numpy_dtype.itemsize

    def array(self) -> np.ndarray:
        """All of it."""
        pieces = list(self.pieces())
        return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces)).reshape(self.shape)

    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        if self.dtype == "bfloat16":
            return all(((piece & 0x7F80) != 0x7F80).all() for piece in self.pieces())
        return all(np.isfinite(piece).all() for piece in self.pieces())


def as_numbers(piece: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of a piece of a tensor of ``dtype``, whose words they are in bfloat16: these as float32."""
    return (piece.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else piece


def row_ranges(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[int, int]]:
    """(first, end) of the rows of a tensor's pieces; of one without rows, or a number, a single piece."""
    rows = shape[0] if shape else 1
    size = max(PIECE // max(math.prod(shape[1:]) * itemsize, 1), 1)
    for first in range(0, max(rows, 1), size):
        yield first, min(first + size, rows)


def write_tensor_file(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """Writes ``tensors`` by name to ``path``, and ``metadata`` with them."""
    ordered = _ordered(tensors)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _TAGS[tensor.dtype], "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in ordered:
            written = sum(file.write(np.ascontiguousarray(piece).data) for piece in tensor.pieces())
            assert written == tensor.nbytes, name


def take_part(tensors: Mapping[str, Stored]) -> None:
    """Asks for the pieces of ``tensors`` when another process writes them, for those that processes gather."""
    for _, tensor in _ordered(tensors):
        for _ in tensor.pieces():
            pass


def _ordered(tensors: Mapping[str, Stored]) -> list[tuple[str, Stored]]:
    """So that all are aligned."""
    return sorted(tensors.items(), key=lambda named: (-named[1].numpy_dtype.itemsize, named[0]))


class _OpenFile:
    """A file that stays the one it was while another takes its place; closed with the last who reads it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def is_at(self, path: Path) -> bool:
        return os.path.samestat(os.fstat(self._descriptor), path.stat())

    def read(self, dtype: np.dtype | str, count: int, offset: int) -> np.ndarray:
        """``count`` numbers from byte ``offset`` on."""
        array = np.empty(count, dtype)
        rest = array.view(np.uint8).data
        while rest:
            done = os.preadv(self._descriptor, [rest], offset)
            if not done:
                raise OSError("the file ends before its tensors do")
            rest, offset = rest[done:], offset + done
        return array


def open_tensor_file(path: Path) -> tuple[dict[str, str], dict[str, Stored]]:
    """(metadata, tensors by name) of ``path``, whose bytes are read as pieces are asked for: those of the file that is
    there now, also where another takes its place.

    Raises ``OSError`` and ``SafetensorError``, or ``ValueError`` for a header that is no JSON.
    """
    while True:
        opened = _OpenFile(path)
        with safe_open(path, framework="np") as file:  # checks the header against the file
            metadata = file.metadata() or {}
        if opened.is_at(path):  # and so was what has been checked
            break
    length = int(opened.read("<u8", 1, 0)[0])
    header = json.loads(opened.read("uint8", length, 8).tobytes())
    header.pop("__metadata__", None)
    return metadata, {name: _in_file(opened, 8 + length, name, entry) for name, entry in header.items()}


def _in_file(file: _OpenFile, start: int, name: str, entry: Mapping) -> Stored:
    if entry["dtype"] not in _DTYPES:
        raise SafetensorError(f"tensor {name} of dtype {entry['dtype']}")
    shape = tuple(entry["shape"])
    first_byte = start + entry["data_offsets"][0]

    def pieces() -> Iterator[np.ndarray]:
        row = math.prod(shape[1:])
        for first, end in row_ranges(shape, tensor.numpy_dtype.itemsize):
            offset = first_byte + first * row * tensor.numpy_dtype.itemsize
            flat = file.read(tensor.numpy_dtype, (end - first) * row, offset)
            yield flat.reshape(end - first, *shape[1:]) if shape else flat.reshape(())

    tensor = Stored(_DTYPES[entry["dtype"]], shape, pieces)
    return tensor

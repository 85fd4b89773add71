"""The encoder as a program of ``jax.export``."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array, export

from ...recsys import ConfigError
from ...recsys.serving.encoder_program import EncoderProgram
from ..models.sequence_model import SequenceModel

PLATFORMS = ("cpu", "cuda")


def encoder_program(model: SequenceModel) -> EncoderProgram:
    """``model.next_item_hidden`` in the model's dtype on a CPU and on a GPU, with the item rows (V, D) inside.

    Raises ``ConfigError`` without the package that JAX serializes programs with.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ConfigError(
            "program: expected the package flatbuffers, which cce-minus[export] installs and JAX writes and reads "
            "programs with, got none"
        )
    rows = model.item_rows()

    @jax.jit
    def next_item_hidden(inputs: Array) -> Array:
        return model.next_item_hidden(inputs, rows)

    (batch,) = export.symbolic_shape("batch")
    inputs = jax.ShapeDtypeStruct((batch, model.config.max_length), jnp.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A large amount of constants were captured")  # the item rows, as intended
        program = export.export(next_item_hidden, platforms=PLATFORMS)(inputs).serialize()

    def write(path: Path) -> None:
        path.write_bytes(program)

    return EncoderProgram("encoder.jax.bin", "jax", jax.__version__, PLATFORMS, write)

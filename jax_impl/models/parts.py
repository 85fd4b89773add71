"""A model as what compiled functions take: what shapes the program, and arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from flax import nnx

from .sequence_model import SequenceModel


class Graph:
    """NNX's definition of a model, to be a static argument: its hash, which each call asks for and which takes 0.4 ms
    to find, is kept."""

    def __init__(self, definition: nnx.GraphDef[SequenceModel]) -> None:
        self.definition, self._hash = definition, hash(definition)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.definition == other.definition


class Parts(NamedTuple):
    """A model's graph, its parameters and its other arrays, which are states of NNX."""

    graph: Graph
    parameters: Any
    constants: Any

    @classmethod
    def of(cls, model: SequenceModel) -> Parts:
        definition, parameters, constants = nnx.split(model, nnx.Param, ...)
        return cls(Graph(definition), parameters, constants)

    def model(self) -> SequenceModel:
        return nnx.merge(self.graph.definition, self.parameters, self.constants)

    def shapes(self) -> Parts:
        """With `shape_of` each array."""
        return Parts(self.graph, *jax.tree.map(shape_of, self[1:]))


def shape_of(array: Any) -> jax.ShapeDtypeStruct:
    """What a function is compiled for; NumPy arrays go where the others are."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=getattr(array, "sharding", None))

"""JAX's global settings and the caller's mesh: what is written here computes alike under all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

T = TypeVar("T")


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """32 bits and NumPy's promotion of dtypes and ranks, whatever the caller has chosen for code of theirs.

    Gradients and mapped calls are traced after the call has returned: each door of theirs needs this too.
    """
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def in_auto_axes(function: Callable[..., T], arguments: Any, outs: Any) -> T:
    """``function(arguments)`` with the axes of an explicit mesh (``jax.make_mesh``'s) as automatic ones, in which XLA
    places what is computed; for calls under ``jax.jit``.

    ``outs`` is a tree like the results: an array of ``arguments`` that a result is sharded like, or None for one that
    every device has. Gradients are sharded like their arrays. Arrays of other meshes are as they were.
    """
    shardings = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(arguments)]
    mesh = next((sharding.mesh for sharding in shardings if sharding.mesh.explicit_axes), None)
    if mesh is None:
        return function(arguments)

    def sharding_of(like: Any) -> NamedSharding:
        own = None if like is None else jax.typeof(like).sharding
        return own if own is not None and own.mesh == mesh else NamedSharding(mesh, P())

    out_sharding = jax.tree.map(sharding_of, outs, is_leaf=lambda leaf: leaf is None)
    automatic: Any = jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=out_sharding)
    return automatic(arguments)


def in_mesh(tree: T) -> T:
    """``tree``, whose arrays are of no mesh, as whole arrays of the mesh that is computed in. ``buffer_callback``'s
    would take the caller's for theirs when a backward pass meets them again."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.sharding.reshard(tree, P()) if mesh.auto_axes or mesh.explicit_axes else tree

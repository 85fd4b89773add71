"""Triton's interpreter with one rounding of a fused product and sum, and without work that it does for nothing."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

import numpy as np


def improve() -> None:
    """Round ``tl.fma`` once, and do once what the interpreter does again and again: most of our tests' time."""
    from triton.runtime import interpreter

    # whether 32-bit sums overflow takes half of the time, and nothing is that large here
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    _patch_the_language_once_a_launch()
    _describe_each_type_once()
    _compute()


def _patch_the_language_once_a_launch() -> None:
    """The interpreter goes through all members of the language at each call from one jitted function to another, to
    replace what the launch has replaced already."""
    import triton.language as tl
    from triton.runtime import interpreter

    patched: set[frozenset[str]] = set()  # the modules that this launch has seen to
    launch = interpreter.GridExecutor.__call__

    @functools.cache
    def modules_of(function: Any) -> frozenset[str]:
        seen = (value for value in function.__globals__.values() if inspect.ismodule(value))
        return frozenset(module.__name__ for module in seen if module in (tl, tl.core))

    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        patched.clear()
        launch(self, *args, **kwargs)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        modules = modules_of(self.fn)
        if modules not in patched:
            interpreter._patch_lang(self.fn)
            patched.add(modules)
        try:
            return self.rewrite()(*args, **kwargs)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    interpreter.GridExecutor.__call__ = run
    interpreter.InterpretedFunction.__call__ = call


def _describe_each_type_once() -> None:
    """NumPy's dtype, the type of a block, and what a tensor knows of its type."""
    import triton.language as tl
    from triton.runtime import interpreter

    describe_dtype = interpreter._get_np_dtype
    describe_block, describe_tensor = tl.core.block_type.__init__, tl.core.tensor.__init__
    dtypes: dict[Any, Any] = {}
    blocks: dict[Any, dict[str, Any]] = {}

    def np_dtype(dtype: Any) -> Any:
        scalar = dtype.element_ty if isinstance(dtype, tl.block_type) else dtype
        if isinstance(scalar, tl.pointer_type):
            return describe_dtype(scalar)
        if scalar not in dtypes:
            dtypes[scalar] = describe_dtype(scalar)
        return dtypes[scalar]

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = (element_ty.name, *(size.value if isinstance(size, tl.constexpr) else size for size in shape))
        if key not in blocks:
            describe_block(self, element_ty, shape)
            blocks[key] = vars(self) | {"of_tensors": {}}
        vars(self).update(blocks[key])

    def tensor(self: Any, handle: Any, type: Any) -> None:
        known = vars(type).setdefault("of_tensors", {})  # one of all types with its key
        if not known:
            describe_tensor(self, handle, type)
            known.update(vars(self))
        vars(self).update(known, handle=handle)

    interpreter._get_np_dtype = np_dtype
    tl.core.block_type.__init__, tl.core.tensor.__init__ = block_type, tensor


def _compute() -> None:
    """``fma`` that does not round the product, by which scores of 1e4 lose their digits; scans of all that lies beside
    the axis at once, instead of entry by entry; no shapes to be matched that are the same."""
    from triton.runtime import interpreter

    semantic = type(interpreter.interpreter_semantic)
    match_shapes = semantic.broadcast_impl_value

    def fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        exact = x.data.astype(np.float64) * y.data + z.data  # of float32, but for the last bit of 53
        return interpreter.TensorHandle(exact.astype(z.data.dtype), z.dtype.scalar)

    def scan(self: Any, input: Any) -> list[Any]:
        data = [np.moveaxis(each.handle.data, self.axis, 0) for each in input]
        done = [[each[0]] for each in data]
        for i in range(1, len(data[0])):
            pairs = [each[-1] for each in done], [each[i] for each in data]
            operands = (self.to_tensor(x, of.dtype) for side in pairs for x, of in zip(side, input, strict=True))
            combined = self.combine_fn.fn(*operands)
            combined = combined if isinstance(combined, tuple) else (combined,)
            for found, each in zip(done, combined, strict=True):
                found.append(each.handle.data.reshape(found[0].shape))
        return [
            self.to_tensor(np.moveaxis(np.stack(found), 0, self.axis), of.dtype)
            for found, of in zip(done, input, strict=True)
        ]

    def broadcast(self: Any, lhs: Any, rhs: Any) -> tuple[Any, Any]:
        alike = lhs.handle.data.shape == rhs.handle.data.shape and lhs.type.is_block() == rhs.type.is_block()
        return (lhs, rhs) if alike else match_shapes(self, lhs, rhs)

    interpreter.InterpreterBuilder.create_fma = fma
    interpreter.ScanOps.generic_scan = scan
    semantic.broadcast_impl_value = broadcast

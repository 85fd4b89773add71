"""Triton's interpreter with one rounding of a fused product and sum, and without work that it does for nothing."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

import numpy as np


def improve() -> None:
    """Round ``tl.fma`` once; do things once that the interpreter does again and again.

    The interpreter rounds the product of ``tl.fma`` too, by which scores of 1e4 lose their digits. It goes through all
    members of the language at each call from one jitted function to another, to replace what the launch has replaced
    already, builds a table at each look at a dtype, describes the shape of each result anew, and scans entry by entry:
    two thirds of our tests' time.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    patched: set[frozenset[str]] = set()  # the modules that this launch has seen to
    launch, of_dtype = interpreter.GridExecutor.__call__, interpreter._get_np_dtype

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

    known: dict[Any, Any] = {}

    def np_dtype(dtype: Any) -> Any:
        scalar = dtype.element_ty if isinstance(dtype, tl.block_type) else dtype
        if isinstance(scalar, tl.pointer_type):
            return of_dtype(scalar)
        if scalar not in known:
            known[scalar] = of_dtype(scalar)
        return known[scalar]

    def fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        exact = x.data.astype(np.float64) * y.data + z.data  # of float32, but for the last bit of 53
        return interpreter.TensorHandle(exact.astype(z.data.dtype), z.dtype.scalar)

    def scan(self: Any, inputs: Any) -> list[Any]:
        """All that lies beside the axis at once."""
        data = [np.moveaxis(each.handle.data, self.axis, 0) for each in inputs]
        done = [[each[0]] for each in data]
        for i in range(1, len(data[0])):
            parts = [each[-1] for each in done], [each[i] for each in data]
            operands = (self.to_tensor(x, of.dtype) for side in parts for x, of in zip(side, inputs, strict=True))
            combined = self.combine_fn.fn(*operands)
            combined = combined if isinstance(combined, tuple) else (combined,)
            for found, each in zip(done, combined, strict=True):
                found.append(each.handle.data.reshape(found[0].shape))
        return [
            self.to_tensor(np.moveaxis(np.stack(found), 0, self.axis), of.dtype)
            for found, of in zip(done, inputs, strict=True)
        ]

    describe_block, describe_tensor = tl.core.block_type.__init__, tl.core.tensor.__init__
    blocks: dict[Any, dict[str, Any]] = {}  # what describes a type of blocks

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

    semantic = type(interpreter.interpreter_semantic)
    make_alike = semantic.broadcast_impl_value

    def broadcast(self: Any, a: Any, b: Any) -> tuple[Any, Any]:
        alike = a.handle.data.shape == b.handle.data.shape and a.type.is_block() == b.type.is_block()
        return (a, b) if alike else make_alike(self, a, b)

    # whether 32-bit sums overflow takes half of the time, and nothing is that large here
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    interpreter.InterpreterBuilder.create_fma = fma
    semantic.broadcast_impl_value = broadcast
    interpreter.ScanOps.generic_scan = scan
    tl.core.block_type.__init__, tl.core.tensor.__init__ = block_type, tensor
    interpreter.GridExecutor.__call__ = run
    interpreter.InterpretedFunction.__call__ = call
    interpreter._get_np_dtype = np_dtype

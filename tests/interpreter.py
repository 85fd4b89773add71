"""Triton's interpreter without the work that it does again for every call of a device function, or for nothing."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any


def speed_up() -> None:
    """Patch ``triton.language`` once a launch, and look dtypes up in one table.

    The interpreter goes through all members of the language at each call from one jitted function to another, to
    replace what the launch has replaced already, and builds a table at each look at a dtype: a third of our tests'
    time.
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

    # whether 32-bit sums overflow takes half of the time, and nothing is that large here
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    interpreter.GridExecutor.__call__ = run
    interpreter.InterpretedFunction.__call__ = call
    interpreter._get_np_dtype = np_dtype

"""Compiled calls of a model, which are forgotten with it."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import jax

from ..models.sequence_model import SequenceModel


class ModelPrograms:
    """``jax.jit(function, **options)`` for each kind of model: class, configuration and dtype, so that models of one
    kind share their programs.

    A function of ``jax.jit`` keeps all programs that it has ever compiled, and a server takes up runs for years, each
    of another number of items. Here a kind's are freed with its last model, but for those of the kind asked for last:
    models that follow each other compile once.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self._function, self._options = function, options
        self._lock = threading.Lock()  # a server calls one model in a thread and loads the next in another
        self._of_model = weakref.WeakKeyDictionary[SequenceModel, _Compiled]()
        self._of_kind = weakref.WeakValueDictionary[Hashable, _Compiled]()
        self._latest: _Compiled | None = None

    def __len__(self) -> int:
        """The kinds whose programs are kept."""
        return len(self._of_kind)

    def of(self, model: SequenceModel) -> Callable[..., Any]:
        """The function for ``model``, and those of its kind."""
        with self._lock:
            compiled = self._of_model.get(model)
            if compiled is None:
                kind = type(model), model.config, model.dtype
                compiled = self._of_kind.setdefault(kind, _Compiled(self._function, self._options))
                self._of_model[model] = compiled
            self._latest = compiled
            return compiled.call


class _Compiled:
    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        @functools.wraps(function)
        def own(*operands: Any, **keywords: Any) -> Any:  # programs are those of a function object
            return function(*operands, **keywords)

        self.call = jax.jit(own, **options)

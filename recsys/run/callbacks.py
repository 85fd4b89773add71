"""Those whom a training tells its events."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..errors import ConfigError
from .config import TrainConfig
from .events import STOP, Callback, EpochEnded, Event, RunFailed, RunStarted
from .log_choices import parse_loggers
from .loggers import logger_named
from .progress import Progress
from .run_directory import RunDirectory

logger = logging.getLogger(__name__)


class Callbacks:
    """The loggers of the option ``log_to`` of a ``run`` and then the ``given`` callbacks, told in this order.

    Of several processes the one that ``tells`` calls them, and ``agree(asked)`` makes its wish to stop that of all; the
    others have none. Raises ``ConfigError`` for what cannot be called, and for a logger whose package is missing.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        given: Sequence[Callback] = (),
        *,
        tells: bool = True,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        check_callbacks(given)
        loggers = [logger_named(name) for name in parse_loggers(config.log_to)]
        self._told: list[Callback] = [*loggers, *given] if tells else []
        self._run, self._agree = run, agree

    def tell(self, event: Event) -> bool:
        """Tells ``event`` and says whether any of them asks for a `STOP` of the training.

        What a callback raises ends the training as it is, with a note that names the callback.
        """
        asks = False
        for callback in self._told:
            try:
                answer = callback(event)
            except BaseException as error:
                error.add_note(f"in the callback {name_of(callback)}, told {type(event).__name__}")
                raise
            if answer is STOP and isinstance(event, EpochEnded):
                logger.info("the callback %s stops the training after epoch %d", name_of(callback), event.epoch)
                asks = True
        return asks

    def end_epoch(self, event: EpochEnded) -> bool:
        """Tells an epoch's end and says whether the training is to stop, the same on all processes."""
        return self._agree(self.tell(event))

    @contextmanager
    def of_run(self, config: TrainConfig, progress: Progress) -> Iterator[None]:
        """Tells that a run of the resolved ``config`` goes on from its ``progress``, and what ends it inside if that is
        an error."""
        run = self._run
        try:
            self.tell(RunStarted(config, run.framework, run.path, progress.epochs, config.resume))
            yield
        except BaseException as error:
            for callback in self._told:
                try:
                    callback(RunFailed(error))
                except Exception as other:  # the first error is the one to tell
                    logger.warning("the callback %s, told RunFailed: %s", name_of(callback), other)
            raise


def check_callbacks(given: Sequence[Callback]) -> None:
    """Raises ``ConfigError`` unless ``given`` are callbacks."""
    if not isinstance(given, Sequence):
        raise ConfigError(f"callbacks: expected a list of callables, got {given!r}")
    for number, callback in enumerate(given):
        if not callable(callback):
            raise ConfigError(f"callbacks[{number}]: expected a callable, got {callback!r}")


def require_sendable(given: Sequence[Callback], devices: int) -> None:
    """Raises ``ConfigError`` for callbacks that cannot be sent to other processes."""
    check_callbacks(given)
    for number, callback in enumerate(given):
        try:
            pickle.dumps(callback)
        except Exception as error:  # whatever its __reduce__ raises
            raise ConfigError(
                f"callbacks[{number}]: expected one that can be pickled, as {devices} devices have processes of their "
                f"own, got {name_of(callback)} ({error})"
            ) from error


def name_of(callback: Callback) -> str:
    """What messages call it: a function's name, or an object's class."""
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__

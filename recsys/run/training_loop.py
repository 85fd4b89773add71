"""The loop of a training, the same for both frameworks, which do the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, SupportsFloat

from .background import Writer, import_ahead, short_turns
from .callbacks import Callbacks
from .config import TrainConfig
from .losses import require_finite_weights
from .profile import Profile
from .progress import Progress
from .recorder import Epochs, Recorder, Snapshot


class Training(Protocol):
    """What a framework does of a training."""

    def compile_ahead(self) -> None:
        """Has compiled beside the first steps what comes after them."""
        ...

    def train_epoch(self, epoch: int, profile: Profile) -> Callable[[], float]:
        """Trains one epoch and returns what waits for the mean of its losses; both raise ``DivergedError``."""
        ...

    def largest_weight(self) -> SupportsFloat:
        """The largest magnitude of the weights as they are now; its number is waited for."""
        ...

    def validate(self) -> Callable[[], dict[str, float]]:
        """What waits for the metrics of the validation part with the weights as they are now."""
        ...

    def snapshot(self) -> Snapshot:
        """The state as it is now."""
        ...


def run_epochs(
    training: Training,
    config: TrainConfig,
    progress: Progress,
    recorder: Recorder,
    profile: Profile,
    test: Callable[[], dict[str, float]],
    callbacks: Callbacks | None = None,
) -> dict[str, float]:
    """Trains until the epochs or the patience are used up, and returns what ``test()`` measures of the best weights;
    nothing where no part is held out for it. A callback that asks for it ends the training like a patience used up.

    What epochs leave is written meanwhile. A checkpoint is thus behind by at most the epochs that the one before took
    to write; the last one is written by the end.
    """
    import_ahead("matplotlib.figure")  # of the learning curve
    if progress.epochs < config.epochs and not _is_out_of_patience(progress, config):
        training.compile_ahead()
    stops = False
    with short_turns(), Writer(recorder.write, Epochs.followed_by) as writer:
        while not stops and progress.epochs < config.epochs and not _is_out_of_patience(progress, config):
            epoch = progress.epochs
            loss_of_epoch = training.train_epoch(epoch, profile)
            due = config.has_validation and (epoch + 1) % config.eval_every == 0
            with profile.part("validation"):
                # The device has all its work before the host waits for any of it.
                largest = training.largest_weight()
                validation = training.validate() if due else dict
                with profile.part("checkpoints"):
                    snapshot = training.snapshot()
                loss = loss_of_epoch()
                require_finite_weights(float(largest), epoch)
                metrics = validation()
            with profile.part("checkpoints"):
                ended = recorder.end_epoch(loss, metrics, snapshot)
                writer.submit(ended)
                if snapshot.is_live:  # the next step would change it
                    writer.wait_for(recorder.all_is_written)
            if callbacks is not None:
                with profile.part("callbacks"):
                    stops = callbacks.end_epoch(ended.last_epoch)
        with profile.part("checkpoints"):
            writer.wait_for(recorder.results_are_written)
        with profile.part("test"):
            result = test() if config.has_test else {}
        recorder.finish(result)
        with profile.part("checkpoints"):
            writer.finish()
    return result


def _is_out_of_patience(progress: Progress, config: TrainConfig) -> bool:
    return config.has_validation and progress.validations_since_best >= config.patience

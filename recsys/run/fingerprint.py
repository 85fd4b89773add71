"""What tells the events of a run from others: a resumed run must go on with those that it began with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..files import replacing
from ..protocol.splits import Split


@dataclass(frozen=True)
class Fingerprint:
    """``digest`` is BLAKE2b of all that a split trains on and predicts; the counts are for the message.

    It is the same for any order of the file's rows that gives the same sequences, and wherever the file lies.
    """

    digest: str
    train_events: int
    tested: int

    @classmethod
    def of(cls, split: Split) -> Fingerprint:
        digest = hashlib.blake2b(digest_size=16)
        for part in (split.train, split.valid_history, split.test_history):
            for array, dtype in ((part.offsets, "<i8"), (part.values, "<i4")):
                digest.update(np.ascontiguousarray(array, dtype).tobytes())
        for target in (split.valid_target, split.test_target):
            digest.update(np.ascontiguousarray(target, "<i4").tobytes())
        return cls(digest.hexdigest(), len(split.train.values), len(split.test_target))

    def write(self, path: Path) -> None:
        """Writes JSON, by a rename."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Reads what `write` wrote; raises ``ConfigError``."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"{path}: expected the fingerprint of a run's data, got: {error}") from error

    def require_same(self, other: Fingerprint, *, source: str) -> None:
        """Raises ``DataError`` where ``other``, of the data in ``source``, is not this one."""
        if other.digest != self.digest:
            raise DataError(
                f"data: expected the events that the run to resume began with ({self._counts()}), got others in "
                f"{source} ({other._counts()}): it would train on what it held out; start a new run instead"
            )

    def _counts(self) -> str:
        return f"{self.train_events} to train on, {self.tested} tested users"

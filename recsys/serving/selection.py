"""Whom a command is to recommend to, among users of a run's data and sequences of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.interactions import Interactions
from ..errors import ConfigError
from .id_files import read_ids
from .requests import Requests, all_users, read_requests, user_requests
from .served_run import ServedRun


@dataclass(frozen=True)
class Selection:
    """Exactly one of ``user`` (ids), ``users`` (a file of ids, see `read_ids`), ``all_users`` of the data and
    ``sequences`` (a file of histories, see `read_requests`).

    ``unknown_users`` is what becomes of users that the data lack (`UNKNOWN_USERS`), for ``user`` and ``users``;
    ``skip_unknown`` leaves items that the model does not know out of ``sequences``. Raises `ConfigError` for any other
    number of them, and for a choice that does not go with it.
    """

    user: Sequence[str] = ()
    users: Path | None = None
    all_users: bool = False
    sequences: Path | None = None
    unknown_users: str = "error"
    skip_unknown: bool = False

    def __post_init__(self) -> None:
        names = ("user", "users", "all_users", "sequences")
        given = [name for name in names if getattr(self, name) not in ((), [], None, False)]
        if len(given) != 1:
            raise ConfigError(f"user: expected one of {', '.join(names)}, got {' and '.join(given) or 'none'}")
        if self.skip_unknown and self.sequences is None:
            raise ConfigError(f"skip_unknown: only for sequences, got {given[0]}")
        if self.unknown_users != "error" and given[0] not in ("user", "users"):
            raise ConfigError(f"unknown_users: only for user and users, got {self.unknown_users} with {given[0]}")

    def requests(self, run: ServedRun, interactions: Interactions | None) -> Requests:
        """The chosen users' histories in the run's ``interactions``, which sequences do not need."""
        if self.sequences is not None:
            return read_requests(self.sequences, run.catalog, skip_unknown=self.skip_unknown)
        assert interactions is not None
        if self.all_users:
            return all_users(interactions)
        column = run.config.user_column
        users = self.user if self.users is None else read_ids(self.users, column, option="users")
        return user_requests(interactions, users, unknown=self.unknown_users)

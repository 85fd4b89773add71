"""A recommender as an object: trained on a log, asked as often as wanted, saved and loaded; of either framework."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..data.interactions import Interactions
from ..data.memory_tables import Log, write_table
from ..errors import ConfigError
from ..files import usable
from ..option_checks import check_type
from ..protocol.popularity import PopularityBaseline
from ..run.config import TrainConfig
from ..run.events import Callback
from ..run.progress import TrainResult
from ..run.run_directory import RunDirectory
from ..run.saved_options import given_options
from .candidates import candidates_of
from .fitted_log import columns_of, remove_new, with_log
from .measured import measured, require_measurable, with_given
from .recommendations import recommend_parts
from .requests import all_users, item_ids, listed, sequence_requests, user_requests
from .served_run import ServedModel, ServedRun
from .similar_items import similar_items_table


class BaseRecommender(ABC):
    """What `Recommender` is in both frameworks, which say how a model is trained and loaded.

    ``options`` are those of training (`TrainConfig`, ``cce-minus-torch train --help``) but for ``data``, which `fit` is
    given. Without ``out``, the folder of the run is a temporary one, which goes with the object. Raises ``ConfigError``
    for an option that is none and for unusable values. `get_params`, `set_params` and ``sklearn.base.clone`` work as
    for scikit-learn's estimators; a clone is not fitted.
    """

    _framework: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        self._options: dict[str, Any] = {}
        self.set_params(**options)
        self._forget()

    def _forget(self) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._run: ServedRun | None = None
        self._result: TrainResult | None = None
        self._model: ServedModel | None = None
        self._data: Interactions | None = None
        self._popular: PopularityBaseline | None = None

    def __repr__(self) -> str:
        given = (f"{name}={value!r}" for name, value in self._options.items() if value != _DEFAULTS[name])
        return f"{type(self).__name__}({', '.join(given)})"

    def __getstate__(self) -> dict[str, Any]:
        if self._run is not None:
            raise ConfigError("pickle: expected a recommender before fit, got a fitted one; save and load keep it")
        return {"_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options = state["_options"]
        self._forget()

    @abstractmethod
    def _train(self, config: TrainConfig, callbacks: Sequence[Callback]) -> TrainResult:
        """Trains as the framework's ``train`` does."""

    @abstractmethod
    def _trains_together(self, config: TrainConfig) -> bool:
        """Whether this is one of several processes that were started to train together."""

    @abstractmethod
    def _load(self, weights: Path, device: str, precision: str) -> ServedModel:
        """The model of a weights file."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All options and their values, the defaults of those that were not given; ``deep`` is there for scikit-learn's
        sake, as no option has options."""
        return {**_DEFAULTS, **self._options}

    def set_params(self, **options: Any) -> Self:
        """Changes options for the next `fit`."""
        for name in options:
            if name not in _DEFAULTS:
                near = difflib.get_close_matches(name, _DEFAULTS, 1)
                raise ConfigError(f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else ""))
        changed = {**self._options, **options}
        _config(changed)
        self._options = changed
        return self

    def fit(self, log: Log, y: None = None, *, callbacks: Sequence[Callback] = ()) -> Self:
        """Trains a new model on ``log`` and keeps the weights of its best epoch.

        ``log`` has an event a row, with the columns ``user_column``, ``item_column`` and ``time_column`` (and
        ``rating_column`` with ``min_rating``): a path, a pattern or a folder of Parquet, CSV, TSV or JSON lines, the
        name of a data set, or a table in memory (`arrow_table`). Of the latter a copy is kept in the folder of the run,
        as users' histories are needed to recommend to them. ``y`` is there for scikit-learn's sake alone. ``callbacks``
        are told the run's events (`recsys.run.events`). Raises what the framework's ``train`` raises, and leaves the
        object as it was then.
        """
        temporary = tempfile.TemporaryDirectory(prefix="cce-minus-") if self.get_params()["out"] is None else None
        config = _config({**self._options, "out": temporary.name} if temporary else self._options)
        config, new = with_log(config, self._framework, log, is_shared=self._trains_together(config))
        self._model = None  # its memory may be needed; it is loaded again if this fails
        try:
            result = self._train(config, callbacks)
        except BaseException:
            if not RunDirectory(Path(config.out), self._framework).config.exists():  # no run that needs it
                remove_new(new)
            raise
        self._forget()
        self._temporary, self._result = temporary, result
        self._run = ServedRun.open(config.out)
        return self

    @property
    def run_(self) -> Path:
        """The folder of the run."""
        return self._fitted().files.path

    @property
    def result_(self) -> TrainResult:
        """What `fit` came to: the metrics of test and validation, the best epoch, losses and seconds."""
        if self._result is None:
            raise ConfigError("result_: expected a recommender that was fitted, got one that was not")
        return self._result

    def evaluate(
        self,
        log: Log | None = None,
        *,
        part: str = "test",
        metrics_at: str | None = None,
        filter_seen: bool | None = None,
        test_users: int | None = None,
        batch_size: int | None = None,
        by: Sequence[str] = (),
        baselines: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Metrics, ``ndcg@10`` and so on, of held-out events among the full catalog: of the ``part`` "test" or "valid"
        of the log that it was fitted on, or of another ``log``, split alike. Options are the run's if not given.

        With ``by``, of "history" (a target's earlier events) and "item" (its item's training events), ``["by"]`` has by
        these names, and by labels such as "6-20", the number of ``targets`` with so many, and their metrics. With
        ``baselines``, of `recsys.BASELINES`, ``["baselines"]`` has by name what they reach on the same targets."""
        run = self._fitted()
        require_measurable(run, part, by, baselines)
        config = with_given(
            run.config, metrics_at=metrics_at, filter_seen=filter_seen, test_users=test_users, batch_size=batch_size
        )
        events, trained_on = self._events(log), lambda: run.trained_on(self._events(None))
        return measured(run, self._served, config, events, trained_on, part, by, baselines)

    def recommend(
        self,
        users: Iterable[str | int] | None = None,
        sequences: Iterable[Sequence[str | int]] | Mapping[Any, Sequence[str | int]] | None = None,
        k: int = 10,
        *,
        candidates: Iterable[str | int] | None = None,
        filter_seen: bool = True,
        unknown_users: str = "error",
        skip_unknown: bool = False,
        log: Log | None = None,
    ) -> pa.Table:
        """The ``k`` items with the highest scores for each of ``users`` of the log that the model was fitted on, or of
        another ``log``, by their whole histories there; without ``users`` and ``sequences`` for all users. Or after
        each of ``sequences`` of items, the latest last: a list of them, numbered from 0, or a mapping of users to them.

        A table with ``user_id``, ``rank`` (from 1), ``item_id``, ``title`` (null without titles) and ``score``, best
        first; see `recommendation_table`. ``candidates`` are the items that may be recommended, by default all;
        ``filter_seen`` leaves out those of the history. A user for whom fewer than ``k`` are left has fewer rows. Users
        and items are given by their original ids. Raises ``DataError`` for users that the log lacks, unless
        ``unknown_users`` is "skip", or "popular": the items with the most training events, whose score is null. Raises
        ``DataError`` for items that the model does not know, of which ``skip_unknown`` leaves out those of
        ``sequences``; those of another ``log`` are left out with a warning.
        """
        run, popular = self._fitted(), None
        for name, value in (("filter_seen", filter_seen), ("skip_unknown", skip_unknown)):
            check_type(name, value, bool)
        chosen = None if candidates is None else self._ids("candidates", candidates)
        if sequences is None:
            if skip_unknown:
                raise ConfigError("skip_unknown: only for sequences, got users")
            interactions = self._events(log)
            if users is None:
                requests = all_users(interactions)
            else:
                requests = user_requests(interactions, listed("users", users), unknown=unknown_users)
            if requests.unknown.any():
                popular = self._popularity().top(k, candidates_of(len(run.catalog), chosen))
        elif users is not None or log is not None or unknown_users != "error":
            raise ConfigError("sequences: expected no users, no log and no unknown_users beside them, got some")
        else:
            named = isinstance(sequences, Mapping)
            given = sequences if named else dict(enumerate(listed("sequences", sequences)))
            rows = [listed("sequences", row) for row in given.values()]
            requests = sequence_requests(
                listed("sequences", given), rows, run.catalog, skip_unknown=skip_unknown, source="sequences"
            )
        options = {"filter_seen": filter_seen, "candidates": chosen, "popular": popular}
        parts = recommend_parts(self._served(), run.catalog, requests, k, **options)
        return pa.concat_tables([part.table() for part in parts])

    def similar_items(self, items: Iterable[str | int], k: int = 10) -> pa.Table:
        """The ``k`` other items whose vectors have the largest cosine with those of each of ``items`` (original ids):
        a table with ``item_id``, ``rank`` (from 1), ``similar_item_id``, ``title`` (null without titles) and ``score``,
        the cosine. Raises ``DataError`` for an item that the model does not know."""
        catalog, ids = self._fitted().catalog, self._ids("items", items)
        return similar_items_table(self._served().item_vectors(), ids, k, catalog)

    def save(self, folder: str | Path) -> None:
        """Writes all that `load` and the commands need into a new ``folder``: the run without its checkpoints."""
        files, to = self._fitted().files, Path(folder)
        with usable("folder", "a new folder"):
            logs = [path.name for path in (files.trace, *files.tracked)]
            left_out = shutil.ignore_patterns("*-checkpoints", *logs, ".*")
            shutil.copytree(files.path, to, ignore=left_out)

    @classmethod
    def load(cls, folder: str | Path, *, data: Log | None = None, device: str = "auto") -> Self:
        """The recommender of a run's folder, which either framework has trained by `fit` or by its command.

        Its options are the run's, without what it started from. ``data`` is where the run's events are now, if they
        have moved. Raises ``ConfigError`` where the folder holds no run with weights.
        """
        run = ServedRun.open(folder)
        options = {name: value for name, value in given_options(run.files.config).items() if name in _DEFAULTS}
        of_the_run = {"out": None, "resume": False, "from_run": None, "gone_items": _DEFAULTS["gone_items"]}
        loaded = cls(**{**options, **of_the_run, "device": device})
        loaded._run = dataclasses.replace(run, config=dataclasses.replace(run.config, device=device))
        if data is not None:
            loaded._data = loaded._events(data)
        return loaded

    def _ids(self, name: str, labels: Iterable[str | int]) -> npt.NDArray[np.int32]:
        """Items by their original ids; ``name`` is the argument's."""
        return item_ids(name, labels, self._fitted().catalog)

    def _fitted(self) -> ServedRun:
        if self._run is None:
            raise ConfigError("run: expected a recommender after fit or load, got one before")
        return self._run

    def _served(self) -> ServedModel:
        """The model, loaded at its first use."""
        run = self._fitted()
        if self._model is None:
            self._model = run.load(self._load, run.config.device)
        return self._model

    def _popularity(self) -> PopularityBaseline:
        """Of the training events of the log that it was fitted on."""
        if self._popular is None:
            run = self._fitted()
            self._popular = PopularityBaseline(run.train_part(self._events(None)), len(run.catalog))
        return self._popular

    def _events(self, log: Log | None) -> Interactions:
        """Those of ``log``; without, those that it was fitted on, read at their first use."""
        run = self._fitted()
        if log is None:
            self._data = self._data or run.read_events()
            return self._data
        with tempfile.TemporaryDirectory(prefix="cce-minus-") as folder:
            path = str(log)
            if not isinstance(log, str | Path):
                path = str(Path(folder) / "log.parquet")
                write_table(log, columns_of(run.config), Path(path), source="log")
            return dataclasses.replace(run, config=dataclasses.replace(run.config, data=path)).read_events()


_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(TrainConfig) if field.name != "data"
} | {"out": None}


def _config(options: dict[str, Any]) -> TrainConfig:
    return TrainConfig(**{name: value for name, value in options.items() if (name, value) != ("out", None)})


# what editors and help() show
BaseRecommender.__init__.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    + [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in _DEFAULTS.items()]
)

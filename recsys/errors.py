"""Errors of the data and experiment layer."""

from __future__ import annotations


class DataError(ValueError):
    """A file or a table cannot be used; the message names the file and the column."""


class DownloadError(DataError):
    """The package that holds a named data set could not be downloaded."""


class ConfigError(ValueError):
    """An option has an unusable value; the message names the option, what it expects and what it got."""


class LowMemoryError(ConfigError):
    """The memory does not hold what the options, or one call of a model, ask for."""


class RankError(RuntimeError):
    """A process of a training on several devices has ended by itself; the message names its rank."""


class DivergedError(ArithmeticError):
    """The loss or the weights of a training are no finite numbers; the message names the epoch and the step."""

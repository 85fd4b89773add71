"""The former place of ``data.catalog``, kept for code that imports it."""

from .data.catalog import Catalog

__all__ = ["Catalog"]

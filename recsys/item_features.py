"""The former place of ``data.item_features``, kept for code that imports it."""

from .data.item_features import read_categories

__all__ = ["read_categories"]

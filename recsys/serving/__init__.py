"""What serves a run: its folder, requests and results."""

from .export import export_run
from .long_table import recommendation_table
from .recommendations import recommend_run
from .served_run import ServedModel, ServedRun

__all__ = ["ServedModel", "ServedRun", "export_run", "recommend_run", "recommendation_table"]

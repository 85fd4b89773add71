"""What serves a run: its folder, requests and results."""

from .recommendations import recommend_run
from .served_run import ServedModel, ServedRun, export_run

__all__ = ["ServedModel", "ServedRun", "export_run", "recommend_run"]

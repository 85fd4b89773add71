"""What serves a run: its folder, requests and results."""

from .served_run import ServedModel, ServedRun, export_run, recommend_run

__all__ = ["ServedModel", "ServedRun", "export_run", "recommend_run"]

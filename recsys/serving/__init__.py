"""What serves a run: its folder, requests and results."""

from .export import export_run
from .long_table import recommendation_table
from .recommendation_files import write_recommendations
from .recommendations import Recommended, recommend_parts, recommend_run
from .requests import Requests, user_requests
from .selection import Selection
from .served_run import ServedModel, ServedRun

__all__ = [
    "Recommended",
    "Requests",
    "Selection",
    "ServedModel",
    "ServedRun",
    "export_run",
    "recommend_parts",
    "recommend_run",
    "recommendation_table",
    "user_requests",
    "write_recommendations",
]

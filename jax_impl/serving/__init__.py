"""Ranking with a trained model: evaluation and recommendations."""

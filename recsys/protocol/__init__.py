"""Splits, batches and metrics."""

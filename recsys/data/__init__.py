"""Logs of interactions and what is known of items."""

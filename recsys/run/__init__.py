"""A run's configuration, folder, logs and results."""

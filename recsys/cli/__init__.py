"""The command line that both frameworks share."""

"""The demonstration behind ``make demo``: SASRec trained by both frameworks and measured side by side."""

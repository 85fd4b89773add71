"""Large tables of which a step touches few rows: which rows, and the optimizers that move only them."""

"""Numbers that follow from how many rows a call has: kernels are not compiled anew for another number of them.

The forward kernels are compiled twice, for numbers of rows that 16 divides and for others: what 16 rows' masks have in
common saves registers.
"""

ROW_NUMBERS = (
    "num_rows",
    "num_slots",
    "num_draws",
    "num_places",
    "num_groups",
    "num_drawn",
    "key_programs",
    "num_keys",
    "num_tiles",
    "total",
    "row_programs",
    "round_programs",
    "group_programs",
    "round_keys",
    "rounds",
    "splits",
    "passes",
    "draws_per_pass",
    "columns_per_pass",
    "first_row",
)

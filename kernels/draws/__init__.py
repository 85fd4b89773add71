"""Which items are drawn: the contract that every implementation follows bit for bit, over any array library."""

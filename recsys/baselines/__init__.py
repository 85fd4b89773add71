"""Rankings without a neural model that any model should beat, from the training rows alone; free of frameworks."""

"""The loss side by side with other implementations on one GPU: ``python -m benchmarks.loss run``, ``plot``,
``table``."""

import os

# read when JAX starts, and PyTorch shares the GPU in these measurements
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

"""Launchers: a problem's kernels, built once, compiled once, replayed on torch tensors."""

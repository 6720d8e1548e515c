"""Publish: a run as a dataset folder that stands by itself, and runs and such folders read back."""

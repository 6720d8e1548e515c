"""Comparison of runs: paired statistics, nulls and references, and a report with plots."""

"""Scores: pure functions of prediction and truth, and the calibrations some of them need."""

"""Figures relative to the original."""

import torch

from neuron_explainer.subjects.sparse_quality import normalised_l1, normalised_mean_squared_error


def test_errors_relative_to_nothing_are_undefined() -> None:
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    assert normalised_mean_squared_error(one, zero) is None
    assert normalised_l1(one, zero) is None
    assert normalised_mean_squared_error(one[:0], one[:0]) is None
    assert normalised_mean_squared_error(zero, one) == 1.0
    assert normalised_l1(one, one) == 2.0

"""What a score and a calibration are.

truth       raw activations, not clipped (neurons, tokens): all sequences of a split, concatenated
predicted   what a simulator said of the same tokens (neurons, tokens)
mask        which tokens count (neurons, tokens): not padding, BOS or an undefined prediction
undefined   a score that cannot be had: NaN and a reason, never a number
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.records import BoolArray, FloatArray, Score

NO_TOKENS = "no tokens"
TRUTH_CONSTANT = "truth is constant"
PREDICTION_CONSTANT = "prediction is constant"
TRUTH_ZERO = "truth is all zero"
NOT_FINITE = "not finite"
NO_CALIBRATION_TOKENS = "no calibration tokens"
CALIBRATION_NOT_FINITE = "calibration is not finite"


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One metric over many neurons."""

    values: NDArray[np.float64]  # (neurons,), NaN where undefined
    reasons: tuple[str | None, ...]  # (neurons,), None where defined

    def at(self, neuron: int) -> Score:
        """One neuron's score, by position."""
        reason = self.reasons[neuron]
        return Score(float(self.values[neuron]) if reason is None else None, reason)

    def unless(self, reasons: Sequence[str | None]) -> "Scores":
        """The same, but undefined for each neuron that has one of `reasons`, given (neurons,)."""
        merged = tuple(new or old for new, old in zip(reasons, self.reasons, strict=True))
        defined = np.array([reason is None for reason in merged], dtype=np.bool_)
        return Scores(np.where(defined, self.values, np.nan), merged)

    @classmethod
    def join(cls, parts: Sequence["Scores"]) -> Self:
        """The scores of consecutive groups of neurons as one."""
        return cls(
            np.concatenate([part.values for part in parts]),
            tuple(reason for part in parts for reason in part.reasons),
        )


def reasons_where(
    size: int, *conditions: tuple[BoolArray, str]
) -> tuple[tuple[str | None, ...], BoolArray]:
    """The first condition (neurons,) that holds for each neuron, by name; and where none does."""
    reasons = np.full(size, None, dtype=np.object_)
    defined = np.ones(size, dtype=np.bool_)
    for holds, reason in reversed(conditions):
        reasons[holds] = reason
        defined &= ~holds
    return tuple(reasons.tolist()), defined


def judged(values: NDArray[np.float64], *conditions: tuple[BoolArray, str]) -> Scores:
    """Scores that are undefined where a condition holds or the value (neurons,) is not finite."""
    reasons, defined = reasons_where(len(values), *conditions, (~np.isfinite(values), NOT_FINITE))
    return Scores(np.where(defined, values, np.nan), reasons)


class Scorer(Protocol):
    """A metric: a pure function of arrays of shape (neurons, tokens)."""

    def __call__(self, truth: FloatArray, predicted: FloatArray, mask: BoolArray) -> Scores:
        """One score per neuron."""
        ...


class Calibrator(Protocol):
    """A map from predictions to raw activations, fitted per neuron on the calibration split."""

    @property
    def reasons(self) -> tuple[str | None, ...]:
        """Why a neuron has no calibration (neurons,); None where it has one."""
        ...

    @classmethod
    def fit(cls, truth: FloatArray, predicted: FloatArray, mask: BoolArray) -> Self:
        """Fit each row of (neurons, tokens) by itself."""
        ...

    def apply(self, predicted: FloatArray) -> NDArray[np.float64]:
        """Predictions (neurons, any) in raw activations; NaN for a neuron without calibration."""
        ...

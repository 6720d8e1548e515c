"""The correlation over the whole corpus of simulated records."""

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.score.base import Scores
from neuron_explainer.score.joined import NO_SPLIT, Joined
from neuron_explainer.score.population import population_correlation
from neuron_explainer.score.sequences import largest
from neuron_explainer.score.strata import Strata


def over_corpus(joined: Joined, neurons: NDArray[np.int32], strata: Strata, split: str) -> Scores:
    """One estimate for each of `neurons`, from the records of a split and the quantile records.

    Records without a defined prediction are left out: the others of their stratum stand for them.
    """
    counted = joined.scored & np.isfinite(joined.predicted)
    maximum = largest(joined.truth, joined.scored, joined.lengths)
    answered = np.isfinite(largest(joined.predicted, counted, joined.lengths))
    rows = np.flatnonzero(((joined.split == split) | (joined.split == NO_SPLIT)) & answered)
    of_shard = (joined.neuron - strata.neurons[0]).astype(np.int64)
    stratum = strata.of(of_shard[rows], joined.sequence[rows], maximum[rows], joined.band[rows])
    rows, stratum = rows[stratum >= 0], stratum[stratum >= 0]
    chosen = np.zeros(len(joined.neuron), np.bool_)
    chosen[rows] = True
    tokens = np.repeat(chosen, joined.lengths)
    held = neurons - strata.neurons[0]
    estimate = population_correlation(
        joined.truth[tokens],
        joined.predicted[tokens],
        counted[tokens],
        np.repeat(np.arange(len(rows)), joined.lengths[rows]),
        np.searchsorted(neurons, joined.neuron[rows]),
        stratum,
        strata.sizes[held],
    )
    return estimate.scores.unless([strata.reasons[place] for place in held.tolist()])

"""What people preferred, pair of runs by pair of runs, and whether the scores agree with them."""

from collections import Counter
from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.errors import UserError
from neuron_explainer.view.catalog import Catalog
from neuron_explainer.view.contract import key_of, number
from neuron_explainer.view.entries import RunEntry
from neuron_explainer.view.judgements import FOLDER, Judgement, Pair, Preference, pairs_of
from neuron_explainer.view.live_worker import Line
from neuron_explainer.workspace import Workspace

_Z = 1.959963984540054  # of a 95 % interval
_SIGN: dict[Preference, float] = {"first": 1.0, "second": -1.0, "tie": 0.0, "neither": 0.0}


def pairs(workspace: Workspace, catalog: Catalog) -> list[Line]:
    """One summary for each pair with judgements. Those of changed explanations do not count."""
    return [_summary(workspace, catalog, pair) for pair in pairs_of(workspace, catalog)]


def wilson(successes: int, n: int) -> list[float] | None:
    """The 95 % score interval of a share (Wilson 1927); None for no trials.

    It never shrinks to a point, as the bootstrap's does where all judgements agree.
    """
    if n == 0:
        return None
    share, z2 = successes / n, _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def _summary(workspace: Workspace, catalog: Catalog, pair: Pair) -> Line:
    about: Line = {
        "first": pair.first.key,
        "second": pair.second.key,
        "file": f"scoring/{FOLDER}/{pair.file(workspace).name}",
    }
    try:
        judged = list(pair.read(workspace).values())
    except UserError as error:
        return {**about, "error": str(error), "run": None}
    current = [each for each in judged if _is_current(catalog, pair, each)]
    counts = Counter(each.preferred for each in current)
    decided = counts["first"] + counts["second"]
    return {
        **about,
        "counts": {name: counts[name] for name in _SIGN},
        "judged": len(current),
        "stale": len(judged) - len(current),
        "share": number(counts["first"] / decided) if decided else None,
        "interval": _ends(wilson(counts["first"], decided)),
        "scores": _against_scores(pair, current),
    }


def _is_current(catalog: Catalog, pair: Pair, judged: Judgement) -> bool:
    entry = catalog.sites.get(key_of(pair.first.run.subject, judged.site))
    return entry is not None and pair.texts(entry.records, judged.neuron) == judged.texts


def _against_scores(pair: Pair, judged: Sequence[Judgement]) -> Line | None:
    """How preferences go with the difference of scores; None without a score in common."""
    found = _common(pair.first, pair.second)
    if found is None:
        return None
    simulator, metric = found
    difference = _differences(pair, simulator, metric, judged)
    preference = np.array([_SIGN[each.preferred] for each in judged])
    known = np.isfinite(difference)
    told = known & (preference != 0) & (difference != 0)
    agreeing = int(np.sum(np.sign(difference[told]) == preference[told]))
    of = int(told.sum())
    return {
        "simulator": simulator,
        "metric": metric,
        "n": int(known.sum()),
        "decided": of,
        "agreeing": agreeing,
        "share": number(agreeing / of) if of else None,
        "interval": _ends(wilson(agreeing, of)),
        **_rank_correlation(difference[known], preference[known]),
    }


def _rank_correlation(difference: NDArray[np.float64], preference: NDArray[np.float64]) -> Line:
    """Spearman's, ties sharing their rank."""
    from scipy import stats

    if len(difference) < 3:
        return {"correlation": None, "undefined": "fewer than three neurons"}
    if np.ptp(difference) == 0 or np.ptp(preference) == 0:
        return {"correlation": None, "undefined": "all preferences or all differences are equal"}
    found = stats.spearmanr(difference, preference).statistic
    return {"correlation": number(float(found)), "undefined": None}


def _common(first: RunEntry, second: RunEntry) -> tuple[str, str] | None:
    """A simulator and metric that both runs are scored by, the nulls aside."""
    theirs = {each.name: each.leading for each in second.simulators if not each.null}
    for each in first.simulators:
        if not each.null and each.leading and theirs.get(each.name) == each.leading:
            return each.name, each.leading
    return None


def _differences(
    pair: Pair, simulator: str, metric: str, judged: Sequence[Judgement]
) -> NDArray[np.float64]:
    """The first run's score less the second's, NaN where one is undefined, (judgements,)."""
    sites = {each.site for each in judged}
    first, second = (
        {site: _scores(entry, simulator, metric, site) for site in sites}
        for entry in (pair.first, pair.second)
    )
    return np.array(
        [
            first[each.site].get(each.neuron, np.nan) - second[each.site].get(each.neuron, np.nan)
            for each in judged
        ],
        np.float64,
    )


def _scores(entry: RunEntry, simulator: str, metric: str, site: str) -> dict[int, float]:
    folder = entry.run.simulations(simulator)
    if not folder.shards(f"{site}/scores"):
        return {}
    table = folder.read_all(f"{site}/scores", ["neuron", metric])
    values = table[metric].to_numpy(zero_copy_only=False).astype(np.float64)
    return dict(zip(table["neuron"].to_pylist(), values.tolist(), strict=True))


def _ends(ends: list[float] | None) -> list[float | None] | None:
    return None if ends is None else [number(end) for end in ends]

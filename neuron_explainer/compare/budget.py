"""What a run took for a neuron, and which runs no other beats for less."""

from collections.abc import Sequence

from neuron_explainer.compare.table import Budget
from neuron_explainer.store import Folder


def budget_of(
    explained: Sequence[Folder], candidates: Sequence[Folder], simulated: Sequence[Folder]
) -> Budget:
    """Tokens and dollars a neuron, explaining and simulating together, mean over the seeds.

    `candidates` are the runs that selected explanations were chosen from: all were paid for.
    A folder without a language model took nothing. The cost is not known when a model has no price.
    """
    folders = (*explained, *candidates, *simulated)
    manifests = [folder.manifest() for folder in folders]
    spendings = [manifest.get("spending") or {} for manifest in manifests]
    neurons = sum(
        entry.get("rows", 0)
        for folder in explained
        for file, entry in folder.manifest()["shards"].items()
        if file.rpartition("/")[2].startswith("explanations-")
    )
    if not neurons:
        return Budget(None, None)
    tokens = sum(
        spent.get("prompt_tokens", 0) + spent.get("completion_tokens", 0) for spent in spendings
    )
    costs = [spent.get("cost") if spent else 0.0 for spent in spendings]
    known = [cost for cost in costs if cost is not None]
    return Budget(
        tokens / neurons,
        sum(known) / neurons if len(known) == len(costs) else None,
        any(spent.get("cache_hits") for spent in spendings),
    )


def pareto_front(scores: Sequence[float], prices: Sequence[float | None]) -> list[bool]:
    """For each method, whether no other scores as high for less or higher for as little.

    A method without a price is not on the front.
    """
    pairs = list(zip(scores, prices, strict=True))

    def beaten(score: float, price: float) -> bool:
        return any(
            other_price is not None
            and other >= score
            and other_price <= price
            and (other > score or other_price < price)
            for other, other_price in pairs
        )

    return [price is not None and not beaten(score, price) for score, price in pairs]

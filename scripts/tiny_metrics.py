"""Figures of the embedded example, by brute force: losses, entropies, lookup tables, sparsity."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import torch
from tiny_training import EXCERPT, SITE_BLOCK, Model, normed, padded, top_k
from torch import Tensor
from torch.nn import functional

BEST_TOKENS = 50
RECORDS = 20
Figures = dict[str, object]


def excerpts(documents: list[list[int]]) -> Tensor:
    """Cut documents into consecutive excerpts, each behind a BOS, padded with -1."""
    windows = [
        [0, *ids[start : start + EXCERPT]]
        for ids in documents
        for start in range(0, len(ids), EXCERPT)
    ]
    return padded(windows)


def entropy(counts: Counter[int] | Counter[tuple[int, int]]) -> float:
    """Estimate the entropy of a distribution in nats from its counts."""
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values())


def entropies(documents: list[list[int]]) -> Figures:
    """Estimate what one token tells, alone and after the token before it."""
    pairs = Counter(pair for ids in documents for pair in pairwise([0, *ids]))
    first = Counter(pair[0] for pair in pairs.elements())
    return {
        "unigram_entropy": entropy(Counter(token for ids in documents for token in ids)),
        "bigram_entropy": entropy(pairs) - entropy(first),
        "bigram_note": "conditional entropy, estimated in-sample and so too low",
    }


@torch.no_grad()
def validation_loss(model: Model, windows: Tensor) -> float:
    """Compute the loss in nats per token over the excerpts of the released corpus."""
    total, count = 0.0, 0
    for ids in torch.split(windows, 128):
        logits = model(ids.clamp_min(0)).logits[:, :-1].float()
        target = ids[:, 1:]
        losses = functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum"
        )
        total, count = total + losses.item(), count + int((target >= 0).sum())
    return total / count


@torch.no_grad()
def neuron_activations(model: Model, windows: Tensor, layer: int) -> Tensor:
    """Record a layer's neurons at every token but BOS; padding is 0."""
    kept: list[Tensor] = []
    hook = model.transformer.h[layer].mlp.c_proj.register_forward_pre_hook(
        lambda _, inputs: kept.append(inputs[0][:, 1:].clone())
    )
    for ids in torch.split(windows, 128):
        model.transformer(ids.clamp_min(0))
    hook.remove()
    return torch.cat(kept) * (windows[:, 1:] >= 0).unsqueeze(2)  # (excerpt, token, neuron)


def lookup_table(tokens: Tensor, values: Tensor, vocabulary: int) -> Tensor:
    """Predict each neuron by its best tokens' means, and by the mean of the rest elsewhere."""
    sums = torch.zeros(vocabulary, values.shape[1]).index_add(0, tokens, values)
    counts = torch.bincount(tokens, minlength=vocabulary).float().unsqueeze(1)
    means = torch.where(counts > 0, sums / counts.clamp_min(1), -torch.inf)
    best = means.topk(BEST_TOKENS, dim=0).indices  # (rank, neuron)
    rest = torch.ones_like(means).scatter(0, best, 0.0)
    elsewhere = (sums * rest).sum(0) / (counts * rest).sum(0)
    table = elsewhere.expand_as(means).clone()
    return table.scatter(0, best, means.gather(0, best))  # (vocabulary, neuron)


def lookup_scores(windows: Tensor, values: Tensor, vocabulary: int, seed: int) -> list[float]:
    """Correlate lookup tables with truth over each neuron's top and random excerpts."""
    ids = windows[:, 1:]
    real = ids >= 0
    table = lookup_table(ids[real], values[real], vocabulary)
    maxima = values.masked_fill(~real.unsqueeze(2), -torch.inf).amax(1)  # (excerpt, neuron)
    generator = torch.Generator().manual_seed(seed)
    scores = []
    for neuron in range(values.shape[2]):
        random = torch.randperm(len(windows), generator=generator)[:RECORDS]
        chosen = torch.cat([maxima[:, neuron].topk(RECORDS).indices, random])
        mask = real[chosen]
        truth = values[chosen, :, neuron][mask]
        predicted = table[ids[chosen][mask], neuron]
        scores.append(float(torch.corrcoef(torch.stack([truth, predicted]))[0, 1]))
    return scores


def lookup_by_layer(model: Model, windows: Tensor, seed: int) -> Iterator[tuple[str, Figures]]:
    """Yield, for each layer, how well single tokens tell its neurons."""
    for layer in range(model.config.n_layer):
        values = neuron_activations(model, windows, layer)
        scores = torch.tensor(lookup_scores(windows, values, model.config.vocab_size, seed))
        defined = scores[~scores.isnan()]
        yield (
            str(layer),
            {
                "mean": float(defined.mean()),
                "median": float(defined.median()),
                "above_0.7": float((defined > 0.7).float().mean()),
                "undefined": int(scores.isnan().sum()),
            },
        )


@torch.no_grad()
def sparse_figures(model: Model, state: dict[str, Tensor], k: int, windows: Tensor) -> Figures:
    """Rebuild the corpus's activations from the saved autoencoder and count its latents."""
    weights = {name: value.float() for name, value in state.items()}
    width = weights["pre_bias"].shape[0]
    fired = torch.zeros(len(weights["latent_bias"]))
    total = dict.fromkeys(("rows", "active", "ratio", "error"), 0.0)
    first, second = torch.zeros(width, dtype=torch.float64), 0.0
    for ids in torch.split(windows, 128):
        states = model.transformer(ids.clamp_min(0), output_hidden_states=True).hidden_states
        keep = ids >= 0
        keep[:, 0] = False
        rows = states[SITE_BLOCK + 1][keep]
        values = (normed(rows) - weights["pre_bias"]) @ weights["encoder.weight"].T
        latents = top_k(values + weights["latent_bias"], k)
        rebuilt = latents @ weights["decoder.weight"].T + weights["pre_bias"]
        rebuilt = rebuilt * (rows.std(1, keepdim=True) + 1e-5) + rows.mean(1, keepdim=True)
        error = (rebuilt - rows).square()
        fired += (latents > 0).sum(0)
        total["rows"] += len(rows)
        total["active"] += float((latents > 0).sum())
        total["ratio"] += float((error.mean(1) / rows.square().mean(1)).sum())
        total["error"] += float(error.sum())
        first += rows.double().sum(0)
        second += float(rows.double().square().sum())
    count = total["rows"]
    variance = second - float(first.square().sum()) / count
    return {
        "normalised_mse": total["ratio"] / count,
        "fraction_of_variance_unexplained": total["error"] / variance,
        "dead_latents": float((fired == 0).float().mean()),
        "mean_l0": total["active"] / count,
        "latents": len(fired),
        "k": k,
    }

"""How well and how sparsely an autoencoder reconstructs, in one number each."""

from torch import Tensor


def normalised_mean_squared_error(reconstruction: Tensor, original: Tensor) -> float | None:
    """Mean over rows (rows, d_in) of mean((r−x)²) / mean(x²), uncentred as published.

    None when it is undefined: no rows, or a row of `original` that is all zero.
    """
    power = original.double().square().mean(dim=-1)
    error = (reconstruction.double() - original.double()).square().mean(dim=-1)
    return _mean_ratio(error, power)


def unexplained_variance(reconstruction: Tensor, original: Tensor) -> float | None:
    """Σ‖r−x‖² / Σ‖x−x̄‖² over rows (rows, d_in): 1 is what the rows' mean gives, "FVU".

    None when it is undefined: all rows are equal, or there are none.
    """
    x = original.double()
    total = float((x - x.mean(dim=0)).square().sum())
    return float((reconstruction.double() - x).square().sum()) / total if total > 0 else None


def normalised_l1(latents: Tensor, original: Tensor) -> float | None:
    """Mean over rows of Σ|latent| / ‖x‖, for latents (rows, n) of inputs (rows, d_in).

    None when it is undefined: no rows, or a row of `original` that is all zero.
    """
    return _mean_ratio(latents.double().abs().sum(dim=-1), original.double().norm(dim=-1))


def _mean_ratio(parts: Tensor, wholes: Tensor) -> float | None:
    if wholes.numel() == 0 or bool((wholes == 0).any()):
        return None
    return float((parts / wholes).mean())

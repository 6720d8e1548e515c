"""New directions for dead latents: Bricken et al. 2023, "Towards monosemanticity", appendix."""

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from neuron_explainer.train.weights import Weights

_SHARE = 0.2  # of the live latents' encoder rows, in length


@torch.no_grad()
def resample(
    weights: Weights,
    optimizer: torch.optim.Optimizer,
    rows: Tensor,
    remainder: Tensor,
    dead: Tensor,
    generator: Generator,
) -> int:
    """Point each dead latent at one of `rows` (rows, width); say how many there were.

    A row is drawn with a probability proportional to its squared error, itself the square of its
    `remainder` (rows, width). Its direction from the bias becomes the decoder row, and at a fifth
    of the live latents' mean length the encoder row; the latent's bias and Adam's moments for all
    of it become zero.
    """
    places = dead.nonzero().squeeze(1)
    error = remainder.square().sum(dim=1).square().cpu()
    if not len(places) or not error.sum() > 0:
        return 0
    drawn = torch.multinomial(error, len(places), replacement=True, generator=generator)
    directions = normalize(rows[drawn.to(rows.device)] - weights.bias, dim=1)
    live = weights.encoder[~dead]
    length = live.norm(dim=1).mean() if len(live) else torch.ones_like(weights.encoder[0, 0])
    weights.decoder[places] = directions
    weights.encoder[places] = directions * length * _SHARE
    weights.encoder_bias[places] = 0
    for parameter in (weights.decoder, weights.encoder, weights.encoder_bias):
        for name in ("exp_avg", "exp_avg_sq"):
            moments = optimizer.state[parameter]
            if name in moments:
                moments[name][places] = 0
    return len(places)

"""The weights of an autoencoder in training, and what keeps its decoder rows at length 1.

row    activations at one token, as they are encoded, over `unit`: then their mean squared
       deviation from their mean is 1, so that rates and losses mean the same at every site
raw    signed pre-activations (rows, n)
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear, normalize

from neuron_explainer.subjects.autoencoder import Autoencoder, Normalisation


class Weights(nn.Module):
    """Encoder and decoder side by side: a latent is a row of each."""

    def __init__(self, bias: Tensor, latents: int, scale: float, generator: Generator) -> None:
        """Random decoder rows, and encoder rows of the same directions, of length `scale`.

        `bias` (width,) is what is subtracted from a row and added again. `generator` is on the CPU,
        so that a seed means the same on every device.
        """
        super().__init__()
        directions = torch.randn(latents, len(bias), generator=generator).to(bias)
        directions = normalize(directions, dim=1)
        self.encoder = nn.Parameter(directions * scale)  # (latents, width)
        self.encoder_bias = nn.Parameter(torch.zeros_like(directions[:, 0]))  # (latents,)
        self.decoder = nn.Parameter(directions)  # (latents, width), rows of length 1
        self.bias = nn.Parameter(bias.clone())  # (width,)

    def raw(self, rows: Tensor) -> Tensor:
        """Rows (rows, width) → pre-activations (rows, latents)."""
        return linear(rows - self.bias, self.encoder, self.encoder_bias)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (rows, latents) → rows (rows, width)."""
        return latents @ self.decoder + self.bias

    @torch.no_grad()
    def remove_parallel(self) -> None:
        """Take off the gradient what would only change a decoder row's length.

        As in Bricken et al. 2023: Adam's moments then do not hold what `restore_lengths` undoes.
        """
        gradient = self.decoder.grad
        assert gradient is not None
        along = (gradient * self.decoder).sum(dim=1, keepdim=True)  # of rows of length 1
        gradient -= along * self.decoder

    @torch.no_grad()
    def restore_lengths(self) -> None:
        """Bring every decoder row back to length 1."""
        self.decoder.copy_(normalize(self.decoder, dim=1))

    @torch.no_grad()
    def autoencoder(
        self, unit: float, k: int | None, normalisation: Normalisation, site: str | None
    ) -> Autoencoder:
        """What was trained, on the CPU, reading activations in their own unit."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.named_parameters()}
        return Autoencoder(
            encoder_weight=tensors["encoder"],
            encoder_bias=tensors["encoder_bias"] * unit,
            decoder_weight=tensors["decoder"].T.contiguous(),
            decoder_bias=tensors["bias"] * unit,
            k=k,
            normalisation=normalisation,
            site=site,
        )

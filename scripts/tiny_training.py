"""Training of the embedded example: tokenizer, language model and sparse autoencoder."""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

# What comes from transformers is typed in part only.
Model = Any
Encoder = Any

END = "<|endoftext|>"
EXCERPT = 64
SITE_BLOCK = 2


@dataclass(frozen=True)
class Recipe:
    """The sizes and rates of a training run."""

    steps: int = 2000
    batch_tokens: int = 4096
    peak_rate: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 0.05
    sparse_rows: int = 400_000
    sparse_epochs: int = 8
    latents: int = 1024
    active: int = 16


def train_tokenizer(texts: Iterable[str], size: int = 2000) -> Encoder:
    """Learn a byte-level BPE in which every byte is a token, so that any text can be written."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=core, bos_token=END, eos_token=END)


def new_model(vocabulary: int, seed: int) -> Model:
    """Make an untrained model of the example's shape."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=256,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Model = GPT2LMHeadModel(config)
    model.set_attn_implementation("eager")
    return model


def batches(
    texts: Iterator[str], tokenizer: Encoder, batch_tokens: int, seed: int
) -> Iterator[Tensor]:
    """Cut fresh documents into windows behind a BOS, and windows of like length into batches.

    Most windows have the length of the excerpts that are shown later, from a random phase, so that
    the model knows text that begins in mid-document; every fourth document is cut far longer, so
    that all positions are trained. Padding is -1.
    """
    rng = random.Random(seed)
    while True:
        windows: list[list[int]] = []
        for ids in tokenizer(list(islice(texts, 2000)))["input_ids"]:
            length = 255 if rng.random() < 0.25 else EXCERPT
            starts = [0, *range(rng.randrange(1, length), len(ids), length)]
            for start, stop in zip(starts, [*starts[1:], len(ids) + 1], strict=True):
                windows.append([0, *[*ids, 0][start:stop]])
        windows.sort(key=len)
        ready = list(batched(windows, batch_tokens))
        rng.shuffle(ready)
        yield from ready


def batched(windows: list[list[int]], batch_tokens: int) -> Iterator[Tensor]:
    """Stack windows, already sorted by length, into padded batches of about one size."""
    rows: list[list[int]] = []
    for window in windows:
        if rows and (len(rows) + 1) * len(window) > batch_tokens:
            yield padded(rows)
            rows = []
        rows.append(window)
    if rows:
        yield padded(rows)


def padded(rows: list[list[int]]) -> Tensor:
    """Fill rows up with -1 to the longest."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


def loss_of(model: Model, ids: Tensor) -> Tensor:
    """Compute the mean loss over the tokens that are not padding."""
    states = model.transformer(ids[:, :-1].clamp_min(0)).last_hidden_state  # (row, token, width)
    target = ids[:, 1:]
    real = target >= 0
    return functional.cross_entropy(model.lm_head(states[real]), target[real])


def train_model(
    texts: Iterator[str], tokenizer: Encoder, recipe: Recipe, seed: int
) -> tuple[Model, int]:
    """Train the language model; say how many tokens it saw."""
    model = new_model(len(tokenizer), seed)
    for block in model.transformer.h:  # the same function as the configured GELU, in one kernel
        block.mlp.act = nn.GELU(approximate="tanh")
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, recipe))
    seen = 0
    stream = batches(texts, tokenizer, recipe.batch_tokens, seed)
    for step, ids in enumerate(islice(stream, recipe.steps)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, ids)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen += int((ids[:, 1:] >= 0).sum())
        if step % 100 == 0:
            print(f"step {step:5} of {recipe.steps}, loss {loss.item():.3f}", flush=True)
    return model.eval(), seen


def rate(step: int, recipe: Recipe) -> float:
    """Warm up in a line, then fall along a cosine to a twentieth."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


# ---- the sparse autoencoder


class SparseAutoencoder(nn.Module):
    """A TopK autoencoder over layer-normed activations, in the arithmetic of OpenAI's format."""

    def __init__(self, rows: Tensor, latents: int, active: int, seed: int) -> None:
        """Start from random directions around the mean of the (normed) rows."""
        super().__init__()
        torch.manual_seed(seed)
        width = rows.shape[1]
        directions = functional.normalize(torch.randn(latents, width), dim=1)
        self.active = active
        self.pre_bias = nn.Parameter(rows.mean(0))
        self.latent_bias = nn.Parameter(torch.zeros(latents))
        self.encoder = nn.Parameter(directions.clone())  # (latent, width)
        self.decoder = nn.Parameter(directions.clone())  # (latent, width)

    def pre_activations(self, rows: Tensor) -> Tensor:
        """Encode without choosing."""
        return (rows - self.pre_bias) @ self.encoder.T + self.latent_bias

    def decode(self, latents: Tensor) -> Tensor:
        """Rebuild normed rows."""
        return latents @ self.decoder + self.pre_bias

    def state(self) -> dict[str, object]:
        """Write the weights as OpenAI's state dict, halved in precision."""
        return {
            "pre_bias": self.pre_bias.detach().half(),
            "encoder.weight": self.encoder.detach().half(),
            "latent_bias": self.latent_bias.detach().half(),
            "decoder.weight": self.decoder.detach().T.contiguous().half(),
            "activation": "TopK",
            "activation_state_dict": {"k": self.active, "postact_fn": "ReLU"},
        }


def normed(rows: Tensor) -> Tensor:
    """Subtract the mean of each row and divide by its unbiased deviation."""
    centred = rows - rows.mean(1, keepdim=True)
    return centred / (centred.std(1, keepdim=True) + 1e-5)


def top_k(values: Tensor, k: int) -> Tensor:
    """Keep the k largest of each row where they are positive."""
    top = values.topk(k, dim=1)
    return torch.zeros_like(values).scatter(1, top.indices, top.values.relu())


@torch.no_grad()
def residual_rows(
    model: Model, stream: Iterator[Tensor], count: int, block: int = SITE_BLOCK
) -> Tensor:
    """Collect what a block writes to the residual stream, the BOS position left out."""
    found: list[Tensor] = []
    while sum(map(len, found)) < count:
        ids = next(stream)[:, : EXCERPT + 1]
        states = model.transformer(ids.clamp_min(0), output_hidden_states=True).hidden_states
        keep = ids >= 0
        keep[:, 0] = False
        found.append(states[block + 1][keep])
    return torch.cat(found)[:count]


def train_sparse(rows: Tensor, recipe: Recipe, seed: int) -> SparseAutoencoder:
    """Train the autoencoder, with a second loss that lets dead latents explain the remainder."""
    rows = normed(rows)
    sparse = SparseAutoencoder(rows, recipe.latents, recipe.active, seed)
    optimizer = torch.optim.Adam(sparse.parameters(), lr=2e-3, betas=(0.9, 0.99))
    batch = 2048
    total = recipe.sparse_epochs * (len(rows) // batch)
    idle = torch.zeros(recipe.latents)  # rows since each latent was last active
    step = 0
    for _ in range(recipe.sparse_epochs):
        for chosen in torch.split(torch.randperm(len(rows)), batch)[: len(rows) // batch]:
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1.0, 2.5 * (1 - step / total), (step + 1) / 50)
            loss = sparse_loss(sparse, rows[chosen], idle)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            with torch.no_grad():
                sparse.decoder.copy_(functional.normalize(sparse.decoder, dim=1))
            if step % 200 == 0:
                print(f"step {step:5} of {total}, loss {loss.item():.4f}", flush=True)
            step += 1
    return sparse


def sparse_loss(sparse: SparseAutoencoder, rows: Tensor, idle: Tensor) -> Tensor:
    """Compare the rows with what is rebuilt; update `idle`, the age of each latent."""
    values = sparse.pre_activations(rows)
    latents = top_k(values, sparse.active)
    rebuilt = sparse.decode(latents)
    loss = functional.mse_loss(rebuilt, rows)
    idle += len(rows)
    idle[(latents > 0).any(0)] = 0
    dead = idle > 50_000
    if int(dead.sum()) >= 2 * sparse.active:
        spare = top_k(values.masked_fill(~dead, -torch.inf), 2 * sparse.active)
        remainder = (rows - rebuilt).detach()
        loss = loss + functional.mse_loss(spare @ sparse.decoder, remainder) / 32
    return loss

"""The options of `train-sae` that no other command has."""

from pathlib import Path
from typing import Annotated

import typer

TrainSite = Annotated[
    str, typer.Option("--site", metavar="SITE", help="What it reads, by TransformerLens name.")
]
TrainFolder = Annotated[
    Path, typer.Option("--to", metavar="DIR", help="A new folder for the autoencoder.")
]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="NAME", help="saelens, sparsify or openai.")
]
Latents = Annotated[
    int | None, typer.Option(metavar="N", help="How many; default: --expansion times the width.")
]
Expansion = Annotated[int, typer.Option(metavar="N", help="Latents for each of its inputs.", min=1)]
ActiveLatents = Annotated[
    int | None,
    typer.Option("--k", metavar="N", help="TopK: latents active at a token; default: 32.", min=1),
]
SparsityWeight = Annotated[
    float | None,
    typer.Option("--l1", metavar="X", help="ReLU instead, with this weight of the L1 penalty."),
]
NormalisationOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="none, layer_norm or constant_norm_rescale."),
]
TrainTokens = Annotated[int, typer.Option(metavar="N", help="To train on, repeats counted.", min=1)]
TrainBatch = Annotated[int, typer.Option(metavar="N", help="Tokens a step.", min=1)]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", metavar="X", help="Adam's, at its height; default: by --latents."),
]
WarmUp = Annotated[
    float, typer.Option(metavar="X", help="Share of the steps in which it rises.", min=0, max=1)
]
Decay = Annotated[
    float, typer.Option(metavar="X", help="Share of the steps in which it falls.", min=0, max=1)
]
ForwardOption = Annotated[int, typer.Option(metavar="N", help="Excerpts a forward pass.", min=1)]
BufferMemory = Annotated[
    int, typer.Option("--memory", metavar="MB", help="For activations that are mixed.", min=16)
]
TrainCheckpoint = Annotated[
    int, typer.Option(metavar="N", help="Save the state every N tokens; 0: never.", min=0)
]

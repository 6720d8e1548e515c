"""The options of a pass over a corpus: how it is cut up, how much it may hold, how it goes on."""

from typing import Annotated

import typer

MemoryOption = Annotated[
    int, typer.Option("--memory", metavar="MB", help="For token tables and quantiles.", min=16)
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts; see merge."),
]
CheckpointOption = Annotated[
    int,
    typer.Option(metavar="N", help="Save the state every N excerpts; 0: never.", min=0),
]
PartsOf = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="Its folder in data/, without .parts.")
]
BatchOption = Annotated[int, typer.Option(metavar="N", help="Excerpts a forward pass.", min=1)]
BatchTokens = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Tokens a forward pass, with padding; 0: --batch excerpts, on a GPU 65,536.",
        min=0,
    ),
]

"""The options of the commands that write to Neuronpedia."""

from typing import Annotated

import typer

NO_CLOCK = "1970-01-01T00:00:00.000Z"  # so that the same run gives the same bytes
OFFICIAL = "https://www.neuronpedia.org"

ModelId = Annotated[str, typer.Option(metavar="ID", help="The model there, such as gpt2-small.")]
SourceId = Annotated[
    str, typer.Option(metavar="ID", help="LAYER-SET there, such as 6-mlp-neurons-acme.")
]
OneSite = Annotated[
    str | None, typer.Option("--site", metavar="SITE", help="Default: the run's only one.")
]
NotedSimulator = Annotated[
    str | None,
    typer.Option(
        "--simulator",
        metavar="NAME",
        help="Whose scores are noted; default: imported, else token-lookup.",
    ),
]
Creator = Annotated[str, typer.Option(metavar="ID", help="Your user id there.")]
CreatedAt = Annotated[str, typer.Option(metavar="TIME", help="Written on every line.")]
Release = Annotated[str | None, typer.Option(metavar="NAME", help="Default: the source set.")]
ExplanationType = Annotated[
    str | None, typer.Option(metavar="NAME", help="As registered there; default: by explainer.")
]
ExplanationModel = Annotated[
    str | None, typer.Option(metavar="NAME", help="As registered there; default: the run's model.")
]
Description = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Of the source set, if it is new.")
]
Url = Annotated[str, typer.Option(metavar="URL", help="The server.")]

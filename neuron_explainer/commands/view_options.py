"""The options of `view` and of `publish --site`."""

from pathlib import Path
from typing import Annotated

import typer

PortOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Default: 7861, or a free one where that is taken.", min=1, max=65_535
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Where others may reach it too, with a token; default: 127.0.0.1, this machine alone.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What lets a browser in; with --host one is made."),
]
SubjectOption = Annotated[
    str | None,
    typer.Option(
        "--subject",
        metavar="MODEL",
        help="The model that was collected, to type text into; the embedded example's needs none.",
    ),
]
SaeSite = Annotated[
    str | None,
    typer.Option("--site", metavar="SITE", help="With --sae: what the autoencoder reads."),
]
NoOpen = Annotated[bool, typer.Option("--no-open", help="Only print the URL.")]
PublishedRun = Annotated[
    str | None, typer.Argument(metavar="RUN", help="Its folder in explanations/.")
]
PublishSite = Annotated[
    Path | None,
    typer.Option("--site", metavar="DIR", help="Write the viewer's pages there instead."),
]

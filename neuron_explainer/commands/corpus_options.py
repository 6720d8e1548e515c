"""The options that say which text is read, and how it is cut."""

from typing import Annotated

import typer

CorpusOption = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="A .txt, .jsonl or .parquet file, a folder, or a dataset's hub id USER/NAME.",
    ),
]
CorpusConfig = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a dataset that has several.")
]
CorpusSplit = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a dataset; default: train.")
]
DocumentsOption = Annotated[
    int | None, typer.Option("--documents", metavar="N", help="Take so many at most.", min=1)
]
CorpusTokens = Annotated[
    int | None, typer.Option(metavar="N", help="Take so many tokens at most.", min=1)
]
ShuffleOption = Annotated[
    bool, typer.Option("--shuffle", help="Take the documents in random order, by --seed.")
]
SplitOn = Annotated[
    str, typer.Option(metavar="WHERE", help="A document of a text: file, blank-line or line.")
]
TextField = Annotated[
    str, typer.Option(metavar="NAME", help="Where .jsonl and .parquet hold the text.")
]
ExcerptTokens = Annotated[
    int, typer.Option(metavar="N", help="Length of an excerpt, without BOS.", min=2)
]
MinimumTokens = Annotated[int, typer.Option(metavar="N", help="Drop shorter excerpts.", min=1)]

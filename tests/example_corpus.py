"""Parts of the embedded example's corpus, for tests in any folder.

Not in conftest.py: each folder may have one, and only one module can be called conftest.
"""

import gzip
from itertools import islice
from pathlib import Path


def first_documents(tiny: Path, number: int) -> bytes:
    """The first lines of the example's corpus."""
    with gzip.open(tiny / "corpus.jsonl.gz", "rb") as file:
        return b"".join(islice(file, number))

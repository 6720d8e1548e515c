"""The card's last part: how to load the tables, how to check them, how to cite them."""

import re
from collections.abc import Iterator

from neuron_explainer.publish.facts import Facts, Judge
from neuron_explainer.publish.markdown import line
from neuron_explainer.tokens import readable

_LOAD = """\
## How to load it

`FOLDER` is this folder, or the dataset's name on the hub.

```python
from datasets import load_dataset

explanations = load_dataset("FOLDER", "explanations", split="train")
```

```sql
-- DuckDB, in this folder
SELECT site, neuron, text, {score}
FROM 'data/explanations/*.parquet' JOIN 'data/scores/*.parquet' USING (site, neuron)
WHERE simulator = '{judge}' AND split = 'valid'
ORDER BY {score} DESC LIMIT 10;
```

```python
import neuron_explainer

run = neuron_explainer.load_run("FOLDER")  # a folder on disk
run.scores  # a pyarrow table, like run.explanations and the others
for explanation in run:
    print(explanation.neuron, explanation.text)
```"""

_BYTES = """\
Tokens are bytes and need not be valid UTF-8. In `records`, `token_bytes` has them as they are, \
`tokens` as text in which a backslash is doubled and each byte that is no UTF-8 is `\\xNN`. \
Undefined is null everywhere. `docs/publish.md` of neuron-explainer describes every column.

`sha256sum --check checksums.txt` tells whether a file was changed."""

_CITE = """\
## How to cite it

Name the dataset with its hash and the method with its paper:

```bibtex
@misc{{{key},
  title = {{{title}}},
  note = {{Explanations of {subject}, made with neuron-explainer {version}; run SHA-256 {sha256}}}
}}

@article{{bills2023language,
  title = {{Language models can explain neurons in language models}},
  author = {{Bills, Steven and Cammarata, Nick and Mossing, Dan and Tillman, Henk and Gao, Leo and
            Goh, Gabriel and Sutskever, Ilya and Leike, Jan and Wu, Jeff and Saunders, William}},
  year = {{2023}},
  url = {{https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html}}
}}
```"""


def sections(facts: Facts) -> Iterator[str]:
    """In order."""
    judge = facts.judge or Judge("token-lookup")
    yield _LOAD.format(judge=_quoted(judge.simulator), score=judge.column)
    yield _BYTES
    yield _CITE.format(
        key=re.sub(r"[^A-Za-z0-9]+", "-", facts.title).strip("-") or "explanations",
        title=_in_braces(facts.title),
        subject=_in_braces(facts.subject),
        version=line(facts.package_version),
        sha256=facts.explainer.sha256,
    )


def _quoted(text: str) -> str:
    """Inside a string of SQL, on one line of a block of code."""
    return _in_block(text).replace("'", "''")


def _in_braces(text: str) -> str:
    """A value of BibTeX."""
    return re.sub(r"[\\{}%$&#^~]", " ", _in_block(text))


def _in_block(text: str) -> str:
    """One line that cannot end a block of code."""
    return readable(text.encode("utf-8", "surrogatepass")).replace("`", "'")

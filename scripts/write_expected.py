"""Write what the embedded example comes to, for the test that runs it again and compares.

neuron-explainer run --workspace DIR && python scripts/write_expected.py DIR
"""

import sys
from pathlib import Path
from typing import Any

import orjson

from neuron_explainer.config import ScoreSettings
from neuron_explainer.records import NeuronId
from neuron_explainer.runs import Run
from neuron_explainer.score import summary
from neuron_explainer.workspace import Workspace, find

EXPECTED = Path(__file__).parents[1] / "data" / "tiny" / "expected.json"
RUN = "tiny-token-lookup"
_NEURONS = 4  # of each site whose explanation is kept


def expected(workspace: Workspace) -> dict[str, Any]:
    """The mean scores of every site and simulator, and the explanations of a few neurons."""
    run = Run(workspace, RUN)
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in summary.rows_of(run, ScoreSettings()):
        means = {choice: made.mean_undefined_as_zero for choice, made in row.correlation.items()}
        scores.setdefault(row.site, {})[row.label] = {
            choice: None if mean is None else round(mean, 4) for choice, mean in means.items()
        }
    explanations = {}
    for site in run.sites():
        for index in range(_NEURONS):
            made = run.explanation(NeuronId(run.subject, site, index))
            explanations[f"{site}/{index}"] = None if made is None else made.text
    return {"scores": scores, "explanations": explanations}


if __name__ == "__main__":
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    EXPECTED.write_bytes(orjson.dumps(expected(find(Path(sys.argv[1]))), option=options))

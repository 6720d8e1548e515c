"""docs/publish.md names every column of a published dataset, with its type."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from neuron_explainer.publish import columns
from neuron_explainer.publish.columns import CONFIGS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "publish.md").read_text("utf-8")
NAMES = {"double": "float64", "float": "float32"}
SCHEMAS = {
    "explanations": columns.EXPLANATIONS,
    "scores": columns.scores([]),
    "simulations": columns.simulations(pa.float32()),
    "records": columns.records(pa.float32()),
    "features": columns.FEATURES,
    "runs": columns.RUNS,
}


def spelled(kind: pa.DataType) -> str:
    """A type as the page writes it."""
    if pa.types.is_list(kind):
        return f"list of {spelled(kind.value_type)}"
    return NAMES.get(str(kind), str(kind))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_page_has_the_columns_of_each_config(config: str) -> None:
    section = re.split(r"^##+ ", PAGE.split(f"\n### {config}\n")[1], flags=re.M)[0]
    found = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (yes|no) \|", section, re.M)
    assert found == [
        (field.name, spelled(field.type), "yes" if field.nullable else "no")
        for field in SCHEMAS[config]
    ]

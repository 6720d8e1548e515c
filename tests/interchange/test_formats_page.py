"""docs/formats.md names every column that is on disk, with its type."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from neuron_explainer import schemas
from neuron_explainer.interchange.neuronpedia_records import (
    PUBLISHED_ACTIVATIONS,
    PUBLISHED_EXPLANATIONS,
    PUBLISHED_FEATURES,
)
from neuron_explainer.interchange.openai_records import PUBLISHED_RECORDS
from neuron_explainer.interchange.openai_results import (
    ALTERNATIVES,
    PUBLISHED,
    PUBLISHED_SIMULATIONS,
    SCORES,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text("utf-8")
NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}


def spelled(kind: pa.DataType) -> str:
    """A type as the page writes it."""
    if pa.types.is_list(kind):
        return f"list of {spelled(kind.value_type)}"
    return NAMES.get(str(kind), str(kind))


@pytest.mark.parametrize(
    ("table", "schema"),
    [
        ("sequences", schemas.SEQUENCES),
        ("vocabulary", schemas.VOCABULARY),
        ("records", schemas.records(pa.float16())),
        ("records of attention heads", schemas.head_records(pa.float32())),
        ("pairs", schemas.pairs(pa.float32())),
        ("neurons", schemas.NEURONS),
        ("tokens", schemas.TOKENS),
        ("logit_effects", schemas.LOGIT_EFFECTS),
        ("input_tokens", schemas.INPUT_TOKENS),
        ("nearest", schemas.NEAREST),
        ("explanations", schemas.EXPLANATIONS),
        ("failures", schemas.FAILURES),
        ("simulations", schemas.SIMULATIONS),
    ],
)
def test_the_page_has_the_columns_of_each_table(table: str, schema: pa.Schema) -> None:
    section = re.split(r"^##+ ", PAGE.split(f"\n### {table}\n")[1], flags=re.M)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (yes|no) \|", section, re.M)
    expected = [
        (field.name, spelled(field.type), "yes" if field.nullable else "no") for field in schema
    ]
    found = [(name, kind.split(",")[0], null) for name, kind, null in rows]
    assert found == expected


@pytest.mark.parametrize("schema", [PUBLISHED_RECORDS, ALTERNATIVES, PUBLISHED])
def test_the_page_names_the_columns_that_only_imports_have(schema: pa.Schema) -> None:
    section = PAGE.split("\n## OpenAI")[1]
    for name in {*schema.names, *PUBLISHED_SIMULATIONS.names} - set(SCORES):
        assert f"`{name}`" in section, name


def test_the_page_names_neuronpedias_tables_and_their_keys() -> None:
    section = PAGE.split("\n## Neuronpedia")[1]
    schemas_ = {
        "published_features": PUBLISHED_FEATURES,
        "published_activations": PUBLISHED_ACTIVATIONS,
        "published_explanations": PUBLISHED_EXPLANATIONS,
    }
    for table, schema in schemas_.items():
        keys = schema.names[: 1 + schema.names.index("rank")] if "rank" in schema.names else []
        assert all(f"`{name}`" in section for name in (table, "neuron", *keys))

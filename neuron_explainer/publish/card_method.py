"""The card's method: who explained and simulated, with what, on which split, at what cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from neuron_explainer.publish.facts import Facts
from neuron_explainer.publish.manifests import Made
from neuron_explainer.publish.markdown import bullets, code, line, table

_ELSEWHERE = {"subject", "explainer", "simulator", "prompts", "run", "files", "sha256"}
_DIGITS = 12  # of a hash; the manifest has all of them
_SPLITS = (
    ("train", "every 4th top record", "explanations are written from it"),
    ("calibration", "top and random records", "calibrations are fitted on it"),
    ("valid", "top and random records", "scores are reported on it"),
    ("test", "top and random records", "scores of a final report"),
)


def sections(facts: Facts) -> Iterator[str]:
    """In order."""
    yield _steps(facts)
    yield _splits(facts)
    yield from filter(None, [_failures(facts)])
    yield _cost(facts)
    yield _limits(facts)


def _steps(facts: Facts) -> str:
    rows = [_step("explainer", facts.explainer)]
    rows += [_step("simulator", made) for made in facts.of("simulate")]
    head = ["", "name", "options", "prompt templates"]
    return "\n\n".join(["## How it was made", table(head, rows)])


def _step(role: str, made: Made) -> list[str]:
    config = made.config
    name = str(config.get(role, made.name))
    label = code(name)
    if role == "simulator" and name != made.name:
        label += f", kept as {code(made.name)}"
    options = [
        f"{line(key)} {line(_brief(value))}"
        for key, value in sorted(config.items())
        if key not in _ELSEWHERE
    ]
    return [role, label, ", ".join(options) or "–", _prompts(made)]


def _brief(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _prompts(made: Made) -> str:
    """The hashes of the templates, where the run has recorded them."""
    if "format" in made.config:
        return "not known: imported"
    found = made.config.get("prompts") or made.manifest.get("prompts")
    if isinstance(found, Mapping):
        return ", ".join(
            f"{code(str(name))} {code(str(digest)[:_DIGITS])}" for name, digest in found.items()
        )
    if found:
        return code(str(found))
    return "no hash recorded" if "llm" in made.config else "none: no language model"


def _splits(facts: Facts) -> str:
    scored = " and ".join(facts.scores) or "none"
    text = (
        "Each neuron's records are in four splits, fixed when they were collected; no record is in "
        f"two, and a simulator sees tokens only, never activations. Split scored here: {scored}."
    )
    if facts.imported:
        text = (
            "The run was imported: its simulated sequences are the records of split valid, and "
            "there is no calibration split, so that correlation is the only score."
        )
        return f"## Splits\n\n{text}"
    return "\n\n".join(["## Splits", text, table(["split", "holds", "use"], _SPLITS)])


def _failures(facts: Facts) -> str:
    if not facts.failures:
        return ""
    rows = [
        (line(stage), line(cause), f"{count:,}") for (stage, cause), count in facts.failures.items()
    ]
    return "\n\n".join(
        [
            "## Failures",
            "Neurons without a result. A failure is never scored, and counts in no mean.",
            table(["stage", "cause", "neurons"], rows, "llr"),
        ]
    )


def _cost(facts: Facts) -> str:
    spent = [made for made in facts.made if made.spending]
    if facts.imported:
        return "## Cost\n\nNot known: the run was imported."
    if not spent:
        return "## Cost\n\nNo language model was asked."
    rows = []
    for made in spent:
        cost = made.spending.get("cost")
        counts = (
            made.spending.get(key, 0)
            for key in ("requests", "prompt_tokens", "completion_tokens", "cache_hits")
        )
        rows.append(
            [
                line(f"{made.stage}, {made.name}"),
                *(f"{count:,}" for count in counts),
                "no price known" if cost is None else f"{cost:.2f}",
            ]
        )
    head = ["step", "requests", "tokens read", "tokens written", "answered from cache", "USD"]
    return "\n\n".join(["## Cost", table(head, rows, "lrrrrr")])


_LIMITS = (
    "A score says how well a simulator predicts activations from the explanation, on records of "
    "this corpus. It does not say what a unit does in the model, and on other text it may differ.",
    "Top records are chosen for high activations, so scores over top and random records together "
    "are higher than on text as it comes: compare the column for random records.",
    "A unit may respond to several things: a short text then describes the strongest at best.",
    "Compare with the baselines and nulls of the same table before reading anything into a score; "
    "the token lookup baseline needs no language model and is strong.",
)


def _limits(facts: Facts) -> str:
    limits = list(_LIMITS)
    if str(facts.explainer.config.get("explainer", "")).startswith("token-lookup"):
        limits.append(
            "The explanations are tables of tokens, put into words. They cannot describe what "
            "depends on more than the token and the one before."
        )
    if "test" not in facts.scores and not facts.imported:
        limits.append("The test split has not been scored: it is kept for a final report.")
    if facts.settings.corpus_license is None and "records" in facts.configs:
        limits.append(
            "The records hold text of the corpus, whose licence is not stated here: find it out "
            "before passing them on."
        )
    return f"## Known limits\n\n{bullets(limits)}"

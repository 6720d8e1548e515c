"""The card's opening: what the dataset is about, examples, and what its tables hold."""

from collections.abc import Iterator, Mapping
from typing import Any

from neuron_explainer.publish.facts import Facts
from neuron_explainer.publish.markdown import bullets, code, line, table

_CUT = 160  # letters of an explanation shown as an example
_ONE_ROW = {
    "explanations": "one neuron: its explanation, or why there is none",
    "scores": "one neuron and simulator: every score, and why one is undefined",
    "simulations": "one neuron, simulator and record: the predicted activations",
    "records": "one neuron and record: tokens, true activations, split",
    "features": "one neuron: statistics over the corpus, token means, tokens that it promotes",
    "runs": "one step that made the data: its configuration, its inputs and what it cost",
}


def sections(facts: Facts) -> Iterator[str]:
    """In order."""
    yield _opening(facts)
    yield _about(facts)
    if facts.examples:
        yield _examples(facts)
    yield _tables(facts)


def _opening(facts: Facts) -> str:
    explained = sum(count for count, _ in facts.neurons.values())
    sites = f"{len(facts.neurons)} {'site' if len(facts.neurons) == 1 else 'sites'}"
    judged = ", and scores of how well they predict its activations" if facts.scores else ""
    paragraphs = [
        f"# {line(facts.title)}",
        f"Explanations in natural language of {explained:,} units at {sites} of the language model "
        f"{code(facts.subject)}{judged}. "
        f"Made with neuron-explainer {line(facts.package_version)}.",
    ]
    if facts.lacks:
        paragraphs.append("**The run was not whole when it was published.** It lacked this:")
        paragraphs.append(bullets(line(lack.what) for lack in facts.lacks))
    return "\n\n".join(paragraphs)


def _about(facts: Facts) -> str:
    settings = facts.settings
    rows = [
        ("Subject", _subject(facts)),
        ("Corpus", _corpus(facts)),
        ("Run", code(facts.run)),
        ("Licence of this dataset", line(settings.license or "not stated")),
        ("Licence of the corpus", line(settings.corpus_license or "not stated")),
        ("Language", ", ".join(settings.language) or "not stated"),
    ]
    units = [
        (code(site), f"{explained:,}", f"{failed:,}")
        for site, (explained, failed) in facts.neurons.items()
    ]
    named = table(["", ""], rows)
    return f"{named}\n\n{table(['site', 'explained', 'without explanation'], units, 'lrr')}"


def _subject(facts: Facts) -> str:
    found = {_weights(made.config): None for made in facts.of("collect")}
    about = "; ".join(text for text in found if text)
    return f"{code(facts.subject)}{', ' + about if about else ''}"


def _weights(config: Mapping[str, Any]) -> str:
    """The revision: a hash of the weights, or what stands for them; empty for an import."""
    subject = config.get("subject")
    if not isinstance(subject, Mapping):
        return (
            f"imported from files in {line(str(config['format']))}'s format"
            if config.get("format")
            else ""
        )
    parts = [f"weights {code(str(subject.get('weights')))}, run as {subject.get('dtype')}"]
    parts += [
        f"autoencoder at {code(str(sae.get('site')))}, weights {code(str(sae.get('weights')))}"
        for sae in config.get("sae") or ()
    ]
    return "; ".join(parts)


def _corpus(facts: Facts) -> str:
    corpora = facts.of("corpus")
    if not corpora:
        return "not recorded"
    manifest = corpora[0].manifest
    text = manifest["config"].get("corpus") or manifest["config"].get("sha256")
    known = [
        f"{manifest[key]:,} {name}"
        for key, name in (("excerpts", "sequences"), ("tokens", "tokens"))
        if isinstance(manifest.get(key), int)
    ]
    return ", ".join([*known, f"SHA-256 of its files {code(str(text))}" if text else "no hash"])


def _examples(facts: Facts) -> str:
    rows = [
        (
            code(f"{explanation.neuron.site}/{explanation.neuron.index}"),
            line(explanation.text, _CUT),
            "–" if score is None else f"{score:.2f}",
        )
        for explanation, score in facts.examples
    ]
    judge = facts.judge
    score = f"{judge.title} ({line(judge.simulator)})" if judge else "correlation"
    head = ["neuron", "explanation", score]
    return "\n\n".join(
        ["The first neuron of each site, not chosen for its score:", table(head, rows, "llr")]
    )


def _tables(facts: Facts) -> str:
    rows = [
        (
            code(config),
            _ONE_ROW[config],
            f"{written.rows:,}",
            f"{len(written.files):,}",
        )
        for config, written in facts.configs.items()
    ]
    parts = ["## What is in it", table(["config", "a row is", "rows", "files"], rows, "llrr")]
    absent = [config for config in _ONE_ROW if config not in facts.configs]
    if absent:
        parts.append(f"Not published: {', '.join(map(code, absent))}.")
    return "\n\n".join(parts)

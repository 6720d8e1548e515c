"""A comparison as titled tables of text, which the terminal, Markdown and HTML show alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neuron_explainer.compare.reliability import Reliability
from neuron_explainer.compare.results import Comparison, Line, Pair
from neuron_explainer.compare.statistics import Contrast, Estimate

NONE = "–"
_MARK = " †: the best of several by these very scores, see Selection."


@dataclass(frozen=True, slots=True)
class Block:
    """One table; `short` are the columns that a terminal shows."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""
    short: tuple[int, ...] = ()


def blocks(found: Comparison) -> list[Block]:
    """All tables that have a row."""
    made = [
        _scores(found),
        _differences(found),
        _selection(found),
        _budget(found),
        _power(found),
        _reliability(found),
        _undefined(found),
        _layers(found),
        _disagreements(found),
    ]
    return [block for block in made if block.rows]


def heading(found: Comparison) -> list[str]:
    """What was compared, a line each."""
    facts = {
        key: value for key, value in found.facts.items() if key not in {"allowed", "differences"}
    }
    how = found.resampling
    lines = [
        ", ".join([f"metric {found.metric}", *(f"{key} {value}" for key, value in facts.items())]),
        f"intervals {how.level:.0%}, {how.resamples:,} resamples "
        f"({how.of_levels.resamples:,} where it is no difference), seed {how.seed}",
    ]
    if found.facts.get("allowed"):
        lines.append(
            f"compared although they differ ({'; '.join(found.facts['differences'])}), "
            f"because: {found.facts['allowed']}"
        )
    return lines


def marked(found: Comparison, name: str) -> str:
    """A method's name, with a mark when it was selected on the scores that are reported."""
    return f"{name} †" if name in {one.name for one in found.guards if one.flagged} else name


def signed(estimate: Estimate | None) -> str:
    """A difference with its interval."""
    return _with_interval(estimate, "+.3f")


def plain(estimate: Estimate | None) -> str:
    """A level with its interval."""
    return _with_interval(estimate, ".3f")


def p_text(p_value: float | None) -> str:
    """A p-value; one digit of it where it is small."""
    if p_value is None:
        return NONE
    return f"{p_value:.3f}" if p_value >= 0.01 else f"{p_value:.1g}"


def _with_interval(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return NONE
    text = _number(estimate.value, form)
    ends = estimate.interval
    return (
        text if ends is None else f"{text} [{_number(ends.low, form)}, {_number(ends.high, form)}]"
    )


def _number(value: float | None, form: str = ".3f") -> str:
    return NONE if value is None else format(value, form).replace("-", "−")


def _scores(found: Comparison) -> Block:
    def row(line: Line) -> tuple[str, ...]:
        return (
            marked(found, line.name),
            f"{line.defined:,}",
            plain(line.mean) if line.mean else "undefined",
            _number(line.median),
            plain(line.mean_undefined_as_chance) if line.undefined else "the same",
            signed(line.above_lookup),
            _percent(line.gap_closed),
        )

    return Block(
        "Scores",
        ("", "n", "mean", "median", f"undefined as {found.chance:g}", "above lookup", "gap closed"),
        tuple(row(line) for line in found.lines),
        "On the neurons that every method attempted. Gap closed: 0 % is the shuffled null, 100 % "
        f"the lookup.{_MARK if any(one.flagged for one in found.guards) else ''}",
        (0, 1, 2, 5, 6),
    )


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return NONE
    ends = estimate.interval
    text = f"{estimate.value:.0%}"
    return text if ends is None else f"{text} [{ends.low:.0%}, {ends.high:.0%}]"


def _differences(found: Comparison) -> Block:
    def rows(pair: Pair) -> Iterator[tuple[str, ...]]:
        name = f"{marked(found, pair.a)} − {marked(found, pair.b)}"
        yield _contrast(name, pair.contrast, pair.p_adjusted)
        if pair.policies_disagree:
            yield _contrast(
                f"{name}, undefined as {found.chance:g}",
                pair.undefined_as_chance,
                pair.p_adjusted_undefined_as_chance,
            )

    return Block(
        "Differences",
        (
            *("", "n", "difference", "p", "p (Holm)", "effect", "better / worse / tied"),
            *("P(better)", "Spearman"),
        ),
        tuple(row for pair in found.pairs for row in rows(pair)),
        "Paired by neuron, the first less the second. Effect: mean over standard deviation of the "
        "differences. P(better): that the first is better on a neuron, ties counting half.",
        (0, 1, 2, 4, 6),
    )


def _contrast(name: str, contrast: Contrast | None, adjusted: float | None) -> tuple[str, ...]:
    if contrast is None:
        return (name, "0", "undefined", *[NONE] * 6)
    return (
        name,
        f"{contrast.n:,}",
        signed(contrast.difference),
        p_text(contrast.p_value),
        p_text(adjusted),
        _number(contrast.effect_size, "+.2f"),
        f"{contrast.better:.0%} / {contrast.worse:.0%} / {contrast.tied:.0%}",
        plain(contrast.superiority),
        _number(contrast.spearman, ".2f"),
    )


def _selection(found: Comparison) -> Block:
    rows = tuple(
        (guard.name, f"{guard.among}", "flagged" if guard.flagged else "fair", guard.verdict)
        for guard in found.guards
    )
    return Block("Selection", ("", "best of", "", "what it means"), rows, short=(0, 3))


def _budget(found: Comparison) -> Block:
    known = [line for line in found.lines if line.budget.tokens is not None]

    def row(line: Line) -> tuple[str, ...]:
        fronts = [
            what
            for what, on in (("tokens", line.on_front_by_tokens), ("cost", line.on_front_by_cost))
            if on
        ]
        cost = line.budget.cost
        return (
            line.name,
            f"{line.budget.tokens:,.0f}" + ("*" if line.budget.cached else ""),
            NONE if cost is None else f"${cost:.3g}",
            _number(line.mean.value if line.mean else None),
            ", ".join(fronts) or "no",
        )

    cached = any(line.budget.cached for line in known)
    return Block(
        "Budget",
        ("", "tokens a neuron", "cost a neuron", "mean", "on the Pareto front by"),
        tuple(row(line) for line in known if line.role == "method"),
        "Explaining and simulating together. On the front: no other method scores as high for less."
        + (" *: without what the cache answered." if cached else ""),
    )


def _power(found: Comparison) -> Block:
    planned = [(pair, pair.plan) for pair in found.pairs if pair.plan is not None]
    sizes = tuple(planned[0][1].needed) if planned else ()
    rows = tuple(
        (
            f"{pair.a} − {pair.b}",
            f"{plan.spread:.3f}",
            f"±{plan.visible:.3f}" if plan.visible is not None else NONE,
            *(f"{needed:,}" for needed in plan.needed.values()),
        )
        for pair, plan in planned
    )
    return Block(
        "Power",
        ("", "spread", "visible at this n", *(f"n for ±{size:g}" for size in sizes)),
        rows,
        "80 % power, two-sided 5 %. n is planned with the upper 95 % limit of the spread.",
    )


def _reliability(found: Comparison) -> Block:
    sizes = sorted({size for one in found.reliability for size in one.sequences})

    def row(one: Reliability) -> tuple[str, ...]:
        known = dict(zip(one.sequences, one.agreement, strict=True))
        projected = f"{_number(one.reported, '.2f')} ({one.reported_sequences})"
        return (one.method, *(_short(known.get(size)) for size in sizes), projected)

    sampled = max((one.neurons for one in found.reliability), default=0)
    return Block(
        "Reliability",
        ("sequences a score", *(f"{size}" for size in sizes), "reported"),
        tuple(row(one) for one in found.reliability),
        "Rank correlation over neurons of two scores that were taken from disjoint sequences, on "
        f"{sampled:,} neurons. Reported: for as many sequences as the scores above are taken from, "
        "by the formula of Spearman and Brown.",
    )


def _short(estimate: Estimate | None) -> str:
    return _with_interval(estimate, ".2f")


def _undefined(found: Comparison) -> Block:
    rows = [
        (line.name, cause, f"{count:,}", f"{count / (line.neurons * line.seeds):.1%}")
        for line in found.lines
        for cause, count in line.undefined.items()
    ]
    rows += [
        (line.name, "not attempted, and left out for all", f"{line.absent:,}", NONE)
        for line in found.lines
        if line.absent
    ]
    return Block("Missing and undefined", ("", "cause", "neurons", "share"), tuple(rows))


def _layers(found: Comparison) -> Block:
    rows = tuple(
        (f"{pair.a} − {pair.b}", f"{layer}", f"{neurons:,}", signed(estimate))
        for pair in found.pairs
        if len(pair.layers) > 1
        for layer, (neurons, estimate) in pair.layers.items()
    )
    return Block("By layer", ("", "layer", "n", "difference"), rows)


def _disagreements(found: Comparison) -> Block:
    def texts(explanations: Sequence[str | None]) -> tuple[str, ...]:
        return tuple(text if text is not None else NONE for text in explanations)

    rows: list[tuple[str, ...]] = [
        (
            one.neuron,
            one.a,
            one.b,
            f"{one.scores[0]:.3f}",
            f"{one.scores[1]:.3f}",
            *texts(one.explanations),
        )
        for one in found.disagreements
    ]
    head = ("neuron", "first", "second", "score", "score", "explanation", "explanation")
    explained = any(text for one in found.disagreements for text in one.explanations)
    width = len(head) if explained else 5
    return Block("Where they disagree most", head[:width], tuple(row[:width] for row in rows))

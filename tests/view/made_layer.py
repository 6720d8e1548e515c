"""A layer of forty neurons in every condition, with two runs and a hostile neuron."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from made_site import LEADING, RANDOM, MadeSite, made_neuron, write_site

KEY = "made--layer"
ROWS = 40
HOSTILE, FAILED, UNEXPLAINED, UNSCORED, RIGHT_TO_LEFT = 3, 4, 5, 6, 7
# markup, a URL, a bell, an override of direction, a combining mark, Hebrew, a byte that is no text
POISON = (
    "<img src=x onerror=alert(1)><script>alert(2)</script>\"'&amp; javascript:alert(3) "
    "\x07\u202e e\u0301 \u05e9\u05dc\u05d5\u05dd \\xff"
)
SHOWN = POISON.replace("\x07", "\\x07").replace("\u202e", "\\u202e")
SUBJECTS = ("cats", "dogs", "years", "months", "verbs", "colours", "brackets", "French")


def row(index: int) -> dict[str, Any]:
    """What the table says of a neuron."""
    first = f"{SUBJECTS[index % len(SUBJECTS)]} number {index}"
    explanations = {"first": first, "second": f"rather {first}"}
    failures = {}
    tokens = [" the", f" t{index}", "\n", "\\xc3"]
    if index == HOSTILE:
        explanations, tokens = dict.fromkeys(explanations, POISON), [POISON]
    if index in {FAILED, UNEXPLAINED}:
        del explanations["first"]
    if index == FAILED:
        failures["first"] = "refused"
    if index == RIGHT_TO_LEFT:
        explanations["first"] = "\u05de\u05d9\u05dc\u05d9\u05dd (words)"
    return {"explanations": explanations, "failures": failures, "tokens": tokens}


def score(index: int, shift: float = 0.0) -> float | None:
    """A different score for each neuron, none for one."""
    if index == UNSCORED:
        return None
    return round(((index * 7) % ROWS) / ROWS + shift * (index % 3 - 0.5), 4)


def layer(**changes: Any) -> MadeSite:
    """The site; its neuron resources hold all neurons."""
    indices = range(ROWS)
    made = MadeSite(
        key=KEY,
        statistics={
            "density": [round(10 ** (-index / 10), 6) for index in indices],
            "maximum": [float(1 + (index * 3) % ROWS) for index in indices],
        },
        scores={
            "first": {
                LEADING: [score(index) for index in indices],
                RANDOM: [0.25 for _ in indices],
            },
            "second": {LEADING: [score(index, 0.2) for index in indices]},
        },
        row=row,
        **changes,
    )
    tokens = ["<s>", " The", " cat", "\n", " sat"]
    neurons = {index: made_neuron(made, index, tokens) for index in indices}
    neurons[HOSTILE] = made_neuron(made, HOSTILE, ["<s>", POISON, " cat"])
    return replace(made, neurons=neurons)


def write_layer(folder: Path, **changes: Any) -> Path:
    """The pages over that layer alone."""
    return write_site(folder, [layer()], **changes)

"""The rules of the example's grammar that are set over several lines: tables, rhymes, code."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from tiny_registers import Rule, day

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_grammar import Draw

GOODS = ("food", "fruit", "vegetable", "spice", "drink", "tool", "clothing", "treasure")


# ---- tables


def receipt(draw: Draw) -> str:
    """List purchases with their prices and the total."""
    items = [draw.pick(rule) for rule in draw.rng.choices(GOODS, k=draw.number(3, 7))]
    pence = [draw.number(10, 1900) * 5 for _ in items]
    lines = [f"{item}\t{cost / 100:.2f}" for item, cost in zip(items, pence, strict=True)]
    return "\n".join([*lines, f"Total\t{sum(pence) / 100:.2f}"])


def league(draw: Draw) -> str:
    """Set a league table: played, won, drawn, lost, points; the best team first."""
    played = draw.number(6, 18)
    rows = []
    for team in draw.several("town", draw.number(4, 6)):
        won = draw.number(0, played)
        drawn = draw.number(0, played - won)
        rows.append((3 * won + drawn, team, won, drawn, played - won - drawn))
    body = [
        f"{place}\t{team}\t{played}\t{won}\t{drawn}\t{lost}\t{points}"
        for place, (points, team, won, drawn, lost) in enumerate(sorted(rows, reverse=True), 1)
    ]
    return "\n".join(["\tTeam\tP\tW\tD\tL\tPts", *body])


def csv_table(draw: Draw) -> str:
    """Set comma-separated values under a header."""
    kind = draw.rng.choice(("animal", "machine", "treasure", "clothing", "mineral", "furniture"))
    rows = [
        f"{number},{item},{draw.pick('colour')},{draw.number(1, 99)},{draw.pick('country')}"
        for number, item in enumerate(draw.several(kind, draw.number(5, 9)), draw.number(1, 300))
    ]
    return "\n".join([f"id,{kind},colour,count,country", *rows])


def timetable(draw: Draw) -> str:
    """List the stops of a journey with times that go forward."""
    minutes = draw.number(300, 1100)
    lines = []
    for stop in draw.several("town", draw.number(4, 8)):
        lines.append(f"{minutes // 60:02}:{minutes % 60:02}  {stop}")
        minutes += draw.number(4, 35)
    return "\n".join(lines)


def calendar(draw: Draw) -> str:
    """List days that follow one another, each with something to do."""
    when = day(draw)
    lines = []
    for _ in range(draw.number(5, 8)):
        lines.append(f"{when.strftime('%A %d %B')}: {draw.fill('{errand}')}")
        when += datetime.timedelta(days=draw.rng.choice((1, 1, 1, 2, 7)))
    return "\n".join(lines)


def catalogue(draw: Draw) -> str:
    """List goods under rising numbers, with prices."""
    number = draw.number(1, 400)
    lines = []
    for _ in range(draw.number(6, 10)):
        goods = draw.fill("{material} {" + draw.rng.choice(GOODS[-3:]) + "}")
        lines.append(f"No. {number}\t{goods}, {draw.pick('colour')}\t{draw.pick('price')}")
        number += draw.rng.choice((1, 1, 1, 2, 5))
    return "\n".join(lines)


def family(draw: Draw) -> str:
    """Tell the generations of a family; the years and the ages agree."""
    name, born = draw.pick("surname"), draw.number(1600, 1780)
    parent = draw.pick("person")
    lines = [f"{parent} {name} was born in {draw.pick('home')} in {born}."]
    for _ in range(draw.number(3, 4)):
        age, children = draw.number(19, 38), draw.several("person", draw.number(2, 4))
        pronoun = "she" if parent in draw.grammar.girls else "he"
        others = draw.fill(f" {{job.a.cap}} in {{town}}, {pronoun} died in {born + age + 25}.")
        named = ", ".join(children[1:]) + f" and {children[0]}"
        lines.append(f"At {age}, in {born + age}, {pronoun} had {named}.{others}")
        parent, born = children[0], born + age
        lines.append(f"{parent}, born in {born}, married {draw.fill('{person} of {town}')}.")
    return "\n".join(lines)


def match_score(draw: Draw) -> str:
    """Remember the goals of both halves, winner first."""
    first, second, against = draw.number(0, 2), draw.number(1, 3), draw.number(0, 2)
    against = min(against, first + second - 1)
    draw.named |= {"goals": str(first + second), "against": str(against), "half": str(first)}
    return f"{first + second}-{against}"


# ---- rhymes


def couplet(draw: Draw) -> str:
    """Write two lines that rhyme."""
    family = draw.pick("rhyme").split(":")
    first, second = draw.rng.sample(family, 2)
    draw.named |= {"rhyme_first": first, "rhyme_second": second}
    lines = draw.fill("{verse_first}\n{verse_second}")
    del draw.named["rhyme_first"], draw.named["rhyme_second"]
    return lines


# ---- code


def expression(draw: Draw, depth: int = 2) -> str:
    """Write an arithmetic expression whose brackets close."""
    if depth == 0 or draw.rng.random() < 0.25:
        return draw.rng.choice((draw.pick("variable"), str(draw.number(0, 20))))
    sign = draw.rng.choice(("+", "-", "*", "//", "%"))
    inner = f"{expression(draw, depth - 1)} {sign} {expression(draw, depth - 1)}"
    return f"({inner})" if depth < 2 else inner


def json_value(draw: Draw, depth: int = 0) -> str:
    """Write a JSON object with nesting and indentation."""
    pad = "  " * (depth + 1)
    makers: tuple[Callable[[], str], ...] = (
        lambda: str(draw.number(0, 999)),
        lambda: f'"{draw.fill("{anything}")}"',
        lambda: draw.rng.choice(("true", "false", "null")),
        lambda: "[" + ", ".join(f'"{word}"' for word in draw.several("anything", 3)) + "]",
        lambda: json_value(draw, depth + 1) if depth < 2 else str(draw.number(0, 9)),
    )
    keys = draw.several("json_key", draw.number(2, 5 - depth))
    lines = [f'{pad}"{key}": {draw.rng.choice(makers)()}' for key in keys]
    return "{\n" + ",\n".join(lines) + "\n" + "  " * depth + "}"


def html(draw: Draw) -> str:
    """Write a page of HTML whose tags close."""
    title = draw.fill("{adjective.cap} {anything.s}")
    names = draw.several("anything", draw.number(2, 5))
    items = "\n".join(f"    <li>{name}</li>" for name in names)
    link = draw.fill('<a href="{web}">{anything}</a>')
    body = draw.fill(
        f'  <h1>{title}</h1>\n  <p class="{{colour}}">{{fact}}</p>\n  <ul>\n{items}\n  </ul>\n'
        f"  <p>{{news_fact}} {link}</p>"
    )
    head = f"<head>\n  <title>{title}</title>\n</head>"
    return f"<!DOCTYPE html>\n<html>\n{head}\n<body>\n{body}\n</body>\n</html>"


TABLES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        receipt,
        league,
        csv_table,
        timetable,
        calendar,
        catalogue,
        family,
        match_score,
        couplet,
        expression,
        json_value,
        html,
    )
}

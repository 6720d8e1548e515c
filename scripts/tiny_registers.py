"""The rules of the example's grammar that are computed: names, dates, sums, questions."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_grammar import Draw

Rule = Callable[["Draw"], str]
UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


# ---- words


def spell(number: int) -> str:
    """Write a number below a hundred in words."""
    units = UNITS.split()
    if number < 20:
        return units[number]
    tens = TENS.split()[number // 10 - 2]
    return tens if number % 10 == 0 else f"{tens}-{units[number % 10]}"


def town(draw: Draw) -> str:
    """Make up the name of a town."""
    return draw.pick("name_head") + draw.pick("town_tail")


def surname(draw: Draw) -> str:
    """Make up a surname."""
    return draw.pick("name_head") + draw.pick("surname_tail")


def spelled(draw: Draw) -> str:
    """Write a number in words."""
    return spell(draw.number(2, 99))


def year(draw: Draw) -> str:
    """Draw a year, recent ones more often."""
    return str(2024 - int(draw.rng.random() ** 2 * 600))


def life(draw: Draw) -> str:
    """Name the years of a life and remember birth, death and age."""
    born = draw.number(1500, 1930)
    age = draw.number(35, 93)
    draw.named |= {"born": str(born), "died": str(born + age), "aged": str(age)}
    draw.named["young"] = str(born + draw.number(17, 29))
    draw.named["later"] = str(born + age - draw.number(1, 5))
    return f"{born}–{born + age}"


def day(draw: Draw) -> datetime.date:
    """Draw a day of the calendar."""
    return datetime.date(1990, 1, 1) + datetime.timedelta(days=draw.number(0, 12700))


def date(draw: Draw) -> str:
    """Write a date in one of the usual ways."""
    when = day(draw)
    styles = ("%d %B %Y", "%A, %d %B %Y", "%Y-%m-%d", "%d/%m/%Y", "%B %d, %Y", "%a %d %b %Y")
    return when.strftime(draw.rng.choice(styles)).removeprefix("0")


def clock(draw: Draw) -> str:
    """Write a time of day in one of the usual ways."""
    hour, minute = draw.number(1, 12), 5 * draw.number(0, 11)
    shapes = (f"{hour + 11:02}:{minute:02}", f"{hour}:{minute:02} pm", f"{hour}.{minute:02} am")
    return draw.rng.choice((*shapes, f"{spell(hour)} o'clock", f"half past {spell(hour)}"))


def price(draw: Draw) -> str:
    """Write a price, mostly a round one."""
    sign = draw.rng.choice("$$££€")
    pence = draw.rng.choice((0, 25, 50, 75, 95, 99, draw.number(1, 99)))
    return f"{sign}{draw.number(1, 90)}.{pence:02}"


def phone(draw: Draw) -> str:
    """Make up a telephone number."""
    shape = draw.rng.choice(("0### ### ####", "+44 #### ######", "(###) ###-####", "555-####"))
    return "".join(str(draw.number(0, 9)) if sign == "#" else sign for sign in shape)


def postcode(draw: Draw) -> str:
    """Make up a postcode."""
    first, second = ("".join(draw.rng.choices("ABCDEFGHJKLMNPRSTW", k=2)) for _ in range(2))
    code = f"{first}{draw.number(1, 19)} {draw.number(1, 9)}{second}"
    return draw.rng.choice((code, f"{draw.number(10000, 99999)}"))


def reference(draw: Draw) -> str:
    """Make up a reference such as those of invoices."""
    return "".join(draw.rng.choice("0123456789ABCDEF") for _ in range(draw.number(6, 10)))


def spelling(draw: Draw) -> str:
    """Spell the word that the document has just named."""
    return "-".join(draw.named["word"].upper().replace(" ", ""))


def tick(draw: Draw) -> str:
    """Write the time of a conversation, a little later at each call."""
    now = int(draw.named.get("now", draw.number(420, 1200))) + draw.number(0, 4)
    draw.named["now"] = str(now)
    return f"{now // 60:02}:{now % 60:02}"


def stamp(draw: Draw) -> str:
    """Write the date and time of a line of a log, a little later at each call."""
    earlier = draw.named.get("logged")
    start = datetime.datetime.combine(day(draw), datetime.time(draw.number(0, 20)))
    now = datetime.datetime.fromisoformat(earlier) if earlier else start
    now += datetime.timedelta(seconds=int(draw.rng.random() ** 3 * 900))
    draw.named["logged"] = now.isoformat()
    return now.strftime("[%Y-%m-%d %H:%M:%S]")


# ---- questions that have an answer


def capital_city(draw: Draw) -> str:
    """Name a capital and remember its country."""
    city, country = draw.pick("capital").split(":")
    draw.named["capital_country"] = country
    return city


def capital_asked(draw: Draw) -> str:
    """Ask for a capital."""
    city, country = draw.pick("capital").split(":")
    return f"{country}? A: {city}."


def young_asked(draw: Draw) -> str:
    """Ask for the young of an animal."""
    parent, young = draw.pick("young_of").split(":")
    return f"the {parent}? A: A {young}."


def sum_asked(draw: Draw) -> str:
    """Ask for a sum or a product."""
    left, right = draw.number(2, 12), draw.number(2, 20)
    answer = draw.rng.choice((("plus", left + right), ("times", left * right)))
    return f"{left} {answer[0]} {right}? A: {answer[1]}."


def day_after(draw: Draw) -> str:
    """Ask which day comes next."""
    days = draw.grammar.words["weekday"]
    number = draw.number(0, 6)
    return f"{days[number]}? A: {days[(number + 1) % 7]}."


def number_after(draw: Draw) -> str:
    """Ask which number comes next."""
    number = draw.number(1, 98)
    return f"{spell(number)}? A: {spell(number + 1).capitalize()}."


# ---- sums


def sum_line(draw: Draw) -> str:
    """Write a sum that is right."""
    left, right = draw.number(2, 60), draw.number(2, 40)
    small = draw.number(2, 12)
    shapes = (
        f"{left} + {right} = {left + right}",
        f"{left + right} - {left} = {right}",
        f"{left % 12 + 1} × {small} = {(left % 12 + 1) * small}",
        f"{(right % 12 + 1) * small} ÷ {small} = {right % 12 + 1}",
    )
    return draw.rng.choice(shapes)


def sum_words(draw: Draw) -> str:
    """Say a sum in words."""
    left, right = draw.number(1, 40), draw.number(1, 40)
    if draw.rng.random() < 0.5:
        return f"{spell(left)} plus {spell(right)} is {spell(left + right)}"
    return f"{spell(left + right)} minus {spell(left)} is {spell(right)}"


def times_table(draw: Draw) -> str:
    """Write the multiplication table of a number."""
    base, sign = draw.number(2, 19), draw.rng.choice("×x*")
    first = draw.number(1, 3)
    last = first + draw.number(6, 9)
    return "\n".join(f"{step} {sign} {base} = {step * base}" for step in range(first, last + 1))


def sequence(draw: Draw) -> str:
    """Count up or down in equal steps."""
    start, step = draw.number(0, 60), draw.rng.choice((1, 1, 2, 3, 5, 7, 10, -1, -2))
    start = start + 30 if step < 0 else start
    return ", ".join(str(start + step * i) for i in range(draw.number(6, 12)))


def word_problem(draw: Draw) -> str:
    """Tell a sum as a tale of things gained and lost."""
    who, thing = draw.pick(draw.rng.choice(("girl", "boy"))), draw.fill("{fruit.s}")
    pronoun = "She" if who in draw.grammar.girls else "He"
    have, more = draw.number(5, 40), draw.number(2, 20)
    less = draw.number(1, have)
    giver = draw.fill("{job}")
    return (
        f"{who} has {have} {thing}. The {giver} gives {who} {more} more, so now {who} has "
        f"{have} + {more} = {have + more} {thing}. {pronoun} eats {less} of them. "
        f"How many {thing} are left? {have + more} - {less} = {have + more - less}."
    )


COMPUTED: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        town,
        surname,
        spelled,
        year,
        life,
        date,
        clock,
        price,
        phone,
        postcode,
        reference,
        spelling,
        tick,
        stamp,
        capital_city,
        capital_asked,
        young_asked,
        sum_asked,
        day_after,
        number_after,
        sum_line,
        sum_words,
        times_table,
        sequence,
        word_problem,
    )
}

"""The seeded grammar of the embedded example: documents of many registers, all of our own making.

A **rule** is a name with alternatives, each a **template**: text with tags such as `{job}`. Rules
come from `tiny_words.toml` (one word an alternative), from `tiny_rules_*.toml` (sentences), from
`tiny_registers.py` and `tiny_tables.py` (what is computed: dates, sums, tables, rhymes, code).
Whole documents are templates too, in `tiny_documents.toml`, by register. The tag
`{name=rule*low-high.form.form}` expands `rule`, perhaps several times, gives the result the forms
named, and remembers it under `name`, so that a document keeps speaking of one person.
"""

import random
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tiny_registers
import tiny_tables

TAG = re.compile(
    r"\{(?:(?P<name>[a-z]\w*)=)?(?P<rule>\d+-\d+|[a-z]\w*)"
    r"(?:\*(?P<low>\d+)(?:-(?P<high>\d+))?)?(?P<forms>(?:\.[a-z]+)*)\}"
)
HERE = Path(__file__).parent
COMPUTED = tiny_registers.COMPUTED | tiny_tables.TABLES
Rules = dict[str, list[str]]
# Above 1, earlier alternatives of a word list are drawn more often, as words are in real text.
SKEW = 1.5


@dataclass(frozen=True)
class Document:
    """A text and the name of the register that it is written in."""

    text: str
    register: str


class Grammar:
    """The rules, the irregular forms, and the registers with their share of documents."""

    def __init__(self, words: dict[str, str], sentences: Rules, registers: Rules) -> None:
        """Take the files as parsed."""
        past = [entry.split(":") for entry in words["past"].split()]
        self.past = {base: form for base, form, _ in past}
        self.participle = {base: form for base, _, form in past}
        self.plural = dict(entry.split(":") for entry in words["plural"].split())
        self.words = {name: [spaced(word) for word in text.split()] for name, text in words.items()}
        self.sentences = sentences
        self.registers = registers
        self.girls = frozenset(self.words["girl"])
        self.women = frozenset(self.words["woman"])

    @classmethod
    def load(cls, folder: Path = HERE) -> "Grammar":
        """Read the files beside this one."""
        sentences: Rules = {}
        for path in sorted(folder.glob("tiny_rules_*.toml")):
            sentences |= tomllib.loads(path.read_text("utf-8"))
        documents = tomllib.loads((folder / "tiny_documents.toml").read_text("utf-8"))
        words = tomllib.loads((folder / "tiny_words.toml").read_text("utf-8"))
        return cls(words, sentences, documents["registers"])


def spaced(word: str) -> str:
    """Write the blank that an underscore stands for."""
    return word.replace("_", " ")


class Draw:
    """One document in the making: its random numbers and what it has named so far."""

    def __init__(self, grammar: Grammar, rng: random.Random) -> None:
        """Start a document with nothing named."""
        self.grammar = grammar
        self.rng = rng
        self.named: dict[str, str] = {}

    def number(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return self.rng.randint(low, high)

    def pick(self, rule: str) -> str:
        """Expand a rule once: a remembered name, a range, a computed rule, a word, a sentence."""
        if rule in self.named:
            return self.named[rule]
        if rule[0].isdigit():
            low, high = rule.split("-")
            return str(self.number(int(low), int(high)))
        if rule in COMPUTED:
            return COMPUTED[rule](self)
        if rule in self.grammar.words:
            words = self.grammar.words[rule]
            return words[int(len(words) * self.rng.random() ** SKEW)]
        return self.fill(self.rng.choice(self.grammar.sentences[rule]))

    def several(self, rule: str, count: int) -> list[str]:
        """Expand a rule `count` times, using every alternative before any comes again."""
        order: list[str] = []
        found: list[str] = []
        for _ in range(6 * count):
            if rule in self.grammar.sentences and rule not in self.named:
                alternatives = self.grammar.sentences[rule]
                order = order or self.rng.sample(alternatives, len(alternatives))
                text = self.fill(order.pop())
            else:
                text = self.pick(rule)
            if text not in found:
                found.append(text)
            if len(found) == count:
                break
        return found

    def fill(self, template: str) -> str:
        """Replace every tag of a template."""
        return TAG.sub(self._tag, template)

    def _tag(self, tag: re.Match[str]) -> str:
        rule, low, forms = tag["rule"], tag["low"], tag["forms"].split(".")[1:]
        if low:
            parts = self.several(rule, self.number(int(low), int(tag["high"] or low)))
        elif tag["name"]:
            parts = [self._unused(rule)]
        else:
            parts = [self.pick(rule)]
        if forms and forms[0] in JOINS:
            parts = [JOINS[forms.pop(0)](parts)]
        text = " ".join(parts)
        if tag["name"]:
            self.named[tag["name"]] = text
        for form in forms:
            text = "" if form == "mute" else FORMS[form](text, self.grammar)
        return text

    def _unused(self, rule: str) -> str:
        """Two names of one document are two people, as far as that can be had."""
        text = self.pick(rule)
        for _ in range(20):
            if text not in self.named.values() or rule[0].isdigit():
                break
            text = self.pick(rule)
        return text


def listed(parts: list[str]) -> str:
    """Write `a, b and c`."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


JOINS: dict[str, Callable[[list[str]], str]] = {
    "list": listed,
    "commas": ", ".join,
    "lines": "\n".join,
    "blanks": "\n\n\n".join,
    "paras": "\n\n".join,
    "dashes": lambda parts: "\n".join(f"- {part}" for part in parts),
    "shell": "\n$ ".join,
    "steps": lambda parts: "\n".join(f"{i}. {part}" for i, part in enumerate(parts, 1)),
    "letters": lambda parts: "\n".join(f"({'abcdefgh'[i]}) {part}" for i, part in enumerate(parts)),
}


def ending(word: str, suffix: str) -> str:
    """Add a suffix that begins with a vowel, with the usual changes of spelling."""
    if word.endswith("e") and not word.endswith("ee"):
        return word[:-1] + suffix
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", word) or word in ("forget", "begin", "admit"):
        return word + word[-1] + suffix
    return word + suffix


def with_s(word: str) -> str:
    """Add the -s of plurals and of the third person."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def plural(word: str, grammar: Grammar) -> str:
    """Form the plural of a noun, or of the last noun of a phrase."""
    head, _, last = word.rpartition(" ")
    return f"{head} {grammar.plural.get(last) or with_s(last)}".strip()


def past(verb: str, irregular: dict[str, str]) -> str:
    """Form the past tense or the participle."""
    if verb in irregular:
        return irregular[verb]
    return verb[:-1] + "ied" if re.search(r"[^aeiou]y$", verb) else ending(verb, "ed")


def article(phrase: str, _: Grammar) -> str:
    """Put `a` or `an` before a phrase."""
    vowel = re.match(r"(?!uni|eu|one)[aeiou]|hour|hones|hono", phrase.lower())
    return f"an {phrase}" if vowel else f"a {phrase}"


def gendered(female: str, male: str) -> Callable[[str, Grammar], str]:
    """Choose a pronoun by the person that a phrase names."""

    def choose(person: str, grammar: Grammar) -> str:
        words = person.split()
        return female if words[0] in grammar.girls or words[-1] in grammar.women else male

    return choose


FORMS: dict[str, Callable[[str, Grammar], str]] = {
    "s": plural,
    "es": lambda text, _: with_s(text),
    "ed": lambda text, grammar: past(text, grammar.past),
    "en": lambda text, grammar: past(text, grammar.participle),
    "ing": lambda text, _: ending(text, "ing"),
    "a": article,
    "cap": lambda text, _: text[:1].upper() + text[1:],
    "lower": lambda text, _: text.lower(),
    "upper": lambda text, _: text.upper(),
    "title": lambda text, _: re.sub(r"(?<![\w’'])\w", lambda letter: letter[0].upper(), text),
    "first": lambda text, _: text.split()[0],
    "last": lambda text, _: text.split()[-1],
    "slug": lambda text, _: re.sub(r"\W+", "_", text.lower()),
    "he": gendered("she", "he"),
    "him": gendered("her", "him"),
    "his": gendered("her", "his"),
}


def curly(text: str) -> str:
    """Set straight quotation marks and apostrophes as a printer would."""
    return re.sub(r'"([^"\n]*)"', r"“\1”", text).replace("'", "’")


def document(grammar: Grammar, rng: random.Random) -> Document:
    """Write one document of a random register."""
    register = rng.choice(list(grammar.registers))
    draw = Draw(grammar, rng)
    text = draw.fill(rng.choice(grammar.registers[register])).strip()
    typeset = not register.startswith("code_") and rng.random() < 0.4
    return Document(curly(text) if typeset else text, register)


def documents(seed: int | str, grammar: Grammar | None = None) -> Iterator[Document]:
    """Write documents without end, no two of them alike."""
    grammar = grammar or Grammar.load()
    rng = random.Random(f"tiny {seed}")
    seen: set[str] = set()
    while True:
        new = document(grammar, rng)
        if new.text not in seen:
            seen.add(new.text)
            yield new

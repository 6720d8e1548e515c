"""Explain the units of a language model in natural language, and score the explanations."""

__version__ = "0.1.0"

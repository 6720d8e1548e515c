"""Run a subject over a corpus and keep what explains and scores its neurons."""

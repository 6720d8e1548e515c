"""From records to hypotheses."""

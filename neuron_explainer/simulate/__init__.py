"""From hypotheses and text to predicted activations."""

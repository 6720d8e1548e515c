"""Models being explained, and what reads activations out of them."""

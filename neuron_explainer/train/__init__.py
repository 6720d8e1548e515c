"""Training sparse autoencoders on the activations of a site."""

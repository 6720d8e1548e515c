"""`python -m neuron_explainer`."""

from neuron_explainer.cli import main

if __name__ == "__main__":
    main()

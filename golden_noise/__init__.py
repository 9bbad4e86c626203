"""Golden noise for diffusion models: learn, for a prompt, which starting noise to use."""

__version__ = "0.1.0"

"""How a golden noise is found for a given noise."""

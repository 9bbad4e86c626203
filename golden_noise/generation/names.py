"""The starting noises that can be drawn from and compared, by name."""

CANDIDATES = "candidates"  # noises around golden noise, for people to score
STANDARD, SEARCH, NPNET, GOLDEN = "standard", "search", "npnet", "golden"  # what is drawn as golden noise is NPNet's
SHUFFLED, CONSTANT, BEST_OF_N, GUIDED = "shuffled", "constant", "best_of_n", "guided"
NETWORK_CONTROLS = (SHUFFLED, "random_shift", "rescaled")  # made from NPNet's golden noise
CONTROLS = (*NETWORK_CONTROLS, CONSTANT)
METHODS = (STANDARD, SEARCH, NPNET, *CONTROLS)

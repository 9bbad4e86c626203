"""The launcher of golden_noise.sweeps where Hydra looks for plugins."""

from golden_noise.sweeps.launcher import ProcessLauncher as _ProcessLauncher


class ProcessLauncher(_ProcessLauncher):
    """As its base."""

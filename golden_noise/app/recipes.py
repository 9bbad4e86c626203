"""The command line, and the Python, that make a picture of the page again, to the pixel."""

import shlex
from collections.abc import Sequence

from omegaconf import DictConfig

from golden_noise.app.choices import Choice
from golden_noise.app.settings import SEARCHES, Settings
from golden_noise.cli.arguments import spelled
from golden_noise.generation.names import GOLDEN, SEARCH, STANDARD
from golden_noise.invocation import PROGRAM

LINE = f"{PROGRAM} generate"
#: The lines of a script that make a noise of the standard one, and those that import what they need.
CHANGES = {
    STANDARD: ("", ""),
    GOLDEN: (
        """npnet = load_npnet(config, config.npnet, pipeline)
with torch.no_grad():
    noise = moved(noise, npnet.golden(noise, prompt), strength={strength})
""",
        """from golden_noise.generation.methods import moved
from golden_noise.generation.network import load_npnet
""",
    ),
    SEARCH: ("noise = instantiate(config.search).search(noise, prompt, pipeline)\n", ""),
}
SCRIPT = """{torch}from hydra.utils import instantiate

from golden_noise.cli.config import job_config
{imports}from golden_noise.images import to_pil
from golden_noise.noise import sampler_generators

config = job_config("generate", {settings})
pipeline = instantiate(config.pipeline.model)
prompt, noise = pipeline.encode([{text}]), pipeline.draw_noise([{seed}])
{change}images = pipeline.sample(prompt, noise, generator=sampler_generators([{seed}]))
to_pil(images)[0].save("{noise}.png")
"""


def command(
    settings: Settings, choice: Choice, noises: Sequence[str], search: Sequence[str] = (), count: int = 1
) -> str:
    """The command line that draws these noises, for a shell of Unix.

    Args:
        search: the settings of the search.
        count: seeds, from the chosen one on.
    """
    own = [f"prompt={spelled(choice.prompt)}", f"seed={choice.seed}", *overrides(settings, choice, search)]
    own += [f"strength={choice.strength:g}"] if choice.strength != 1 and GOLDEN in noises else []
    own += [f"images_per_prompt={count}"] if count > 1 else []
    own += [f"noise=[{','.join(noises)}]"] if [*noises] != [STANDARD, GOLDEN] else []
    return f"{LINE} {shlex.join(own)}"


def script(settings: Settings, choice: Choice, noise: str, search: Sequence[str] = ()) -> str:
    """The Python that draws one noise."""
    change, imports = CHANGES[noise]
    given = ", ".join(_literal(text) for text in overrides(settings, choice, search))
    return SCRIPT.format(
        torch="import torch\n" if noise == GOLDEN else "",
        imports=imports,
        settings=f"[{given}]",
        text=_literal(choice.prompt),
        seed=choice.seed,
        change=change.format(strength=f"{choice.strength:g}"),
        noise=noise,
    )


def overrides(settings: Settings, choice: Choice, search: Sequence[str] = ()) -> list[str]:
    """The settings of generate.py behind a choice, but for the prompt, its seed and the noises."""
    source = settings.networks[choice.network]
    network = [] if source == settings.config.pipeline.npnet else [f"npnet={source}"]
    sampler = [f"pipeline.steps={choice.steps}", f"pipeline.guidance={choice.guidance:g}"]
    return [*settings.given, *sampler, *network, *search]


def rescaled(choice: Choice) -> list[str]:
    """The settings of the search that multiplies noise by the chosen factor."""
    return ["search=rescale", f"search.factor={choice.factor:g}"]


def searched(name: str, config: DictConfig) -> list[str]:
    """The settings of a search that a visitor chose."""
    return [f"search={name}", f"search.{SEARCHES[name]}={config[SEARCHES[name]]}"]


def _literal(text: str) -> str:
    """A string of Python, with double quotes where that needs no escapes."""
    return f'"{text}"' if repr(text) == f"'{text}'" and '"' not in text else repr(text)

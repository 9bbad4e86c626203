"""The models behind the page, loaded once, and the pictures that they draw for a visitor."""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from golden_noise.app.choices import Choice
from golden_noise.app.settings import Settings
from golden_noise.errors import UserError
from golden_noise.generation.drawing import draw_batch
from golden_noise.generation.methods import Methods, predicting, searching
from golden_noise.generation.names import GOLDEN, SEARCH, STANDARD
from golden_noise.generation.network import load_npnet
from golden_noise.generation.provenance import drawing_settings, versions
from golden_noise.generation.sheets import image_texts
from golden_noise.images import from_pil, to_pil
from golden_noise.metrics.base import Metric
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.calls import Calls, counting
from golden_noise.pipelines.parts import check_scheduler
from golden_noise.prompts import Prompt
from golden_noise.search.base import NoiseSearch

KEPT = 3  # networks in memory


@dataclass(frozen=True)
class Picture:
    """An image, and what made it.

    Attributes:
        noise: standard, golden or search.
        scores: by metric; None where a metric cannot judge the prompt.
        calls: denoiser calls that it took, those for its noise included.
        texts: of its PNG.
    """

    noise: str
    seed: int
    image: Image.Image
    scores: dict[str, float | None]
    calls: float
    texts: dict[str, str]


class Studio:
    """Draws what visitors choose, one after another. Its pictures are those of generate.py with the same settings.

    Raises:
        UserError: a model or a network cannot be loaded.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self._pipeline: Pipeline = instantiate(settings.config.pipeline.model)
        self._networks: dict[str, AnyNPNet] = {}
        self._network(next(iter(settings.networks)))  # the one that is shown
        used = {name: settings.config.metric[name] for name in settings.metrics}
        self._metrics: dict[str, Metric] = {name: instantiate(part) for name, part in used.items()}
        self._versions = versions()
        self._busy = Lock()  # Gradio's queue lets one visitor in, but a search of one who left may still be ending

    def draw(
        self,
        choice: Choice,
        noises: Sequence[str],
        search: DictConfig | None = None,
        count: int = 1,
        adapt: Callable[[NoiseSearch], NoiseSearch] = lambda search: search,
        watch: Callable[[Calls], object] | None = None,
    ) -> Iterator[list[Picture]]:
        """The pictures of a batch of seeds after the other, those of each noise together.

        Args:
            noises: of standard, golden and search.
            search: settings of the search.
            count: seeds, from the chosen one on.
            adapt: makes another search of the one that the settings say.
            watch: see `counting`.

        Raises:
            UserError: the choice cannot be drawn, or a picture is not finite.
        """
        prompts = choice.prompts(count)
        config = self.settings.chosen(choice.steps, choice.guidance, search)
        config.npnet, config.strength = self.settings.networks[choice.network], choice.strength
        with self._busy:
            pipeline = self._sampling(choice)
            networks = {GOLDEN: self._network(choice.network)} if GOLDEN in noises else {}
            extra = {name: predicting(network, choice.strength) for name, network in networks.items()}
            if SEARCH in noises:
                extra[SEARCH] = searching(adapt(instantiate(config.search)), pipeline)
            compute = Methods([*noises], pipeline, None, extra, [*networks.values()])
            made_by = drawing_settings(config, [*noises], networks)
        for start in range(0, count, config.batch_size):
            batch = prompts[start : start + config.batch_size]
            with self._busy, counting(pipeline, *networks.values(), watch=watch):
                pictures = self._pictures(compute, batch, choice, config, made_by)
            yield pictures  # free for others meanwhile

    def _pictures(
        self,
        compute: Methods,
        prompts: Sequence[Prompt],
        choice: Choice,
        config: DictConfig,
        made_by: Mapping[str, dict[str, Any]],
    ) -> list[Picture]:
        origin = {"pipeline": config.pipeline.name, "npnet": config.npnet, "versions": self._versions}
        pictures = []
        noise = compute.pipeline.draw_noise([prompt.seed for prompt in prompts])
        for drawn in draw_batch(compute, prompts, noise, compute.names):
            images = to_pil(drawn.images)
            scores = [self._scores(choice, image) for image in images]
            for prompt, image, found in zip(prompts, images, scores, strict=True):
                texts = image_texts(prompt, drawn.method, compute.pipeline, origin, made_by[drawn.method])
                pictures.append(Picture(drawn.method, prompt.seed, image, found, drawn.calls, texts))
        return pictures

    def _scores(self, choice: Choice, image: Image.Image) -> dict[str, float | None]:
        scores: dict[str, float | None] = {}
        for name in choice.scores:
            try:
                scores[name] = self._metrics[name].score([choice.prompt], from_pil([image])).item()
            except UserError:  # the miniature's detector knows its captions only
                scores[name] = None
        return scores

    def _sampling(self, choice: Choice) -> Pipeline:
        """The pipeline with the chosen steps and guidance; its models are the same."""
        pipeline = copy.copy(self._pipeline)
        pipeline.steps, pipeline.guidance = choice.steps, choice.guidance
        if choice.steps != self._pipeline.steps:
            check_scheduler(pipeline.pipe, pipeline.flow, choice.steps)
        return pipeline

    def _network(self, name: str) -> AnyNPNet:
        """One of the networks that are offered; the last ones used stay in memory."""
        network = self._networks.pop(name, None)
        if network is None:
            try:
                network = load_npnet(self.settings.config, self.settings.networks[name], self._pipeline)
            except UserError as error:
                if not self._networks:  # at the start: the owner wants to know
                    raise
                print(f"warning: {error}", file=sys.stderr)
                raise UserError(f"The network {name} cannot be loaded: choose another one.") from error
        self._networks[name] = network
        for oldest in [*self._networks][:-KEPT]:
            del self._networks[oldest]
        return network


def noises_of(choice: Choice) -> list[str]:
    """The noises that are compared: a third one, smaller or larger, if there is a factor."""
    return [STANDARD, GOLDEN] if choice.factor == 1 else [STANDARD, GOLDEN, SEARCH]


def rescaling(choice: Choice) -> DictConfig:
    """The search that multiplies noise by the factor, as `search=rescale search.factor=FACTOR`."""
    return OmegaConf.create({"_target_": "golden_noise.search.rescale.Rescale", "factor": choice.factor})

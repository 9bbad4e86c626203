"""The generate job: the same prompt and seed from standard and from golden noise."""

import json
from functools import cache, partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from golden_noise.errors import UserError
from golden_noise.evaluation.compare import load_npnet
from golden_noise.images import save_png, side_by_side, to_pil
from golden_noise.noise import draw_noise, sampler_generators


def generate(config: DictConfig) -> None:
    """Save `standard.png`, `golden.png` and `side_by_side.png` of one prompt and seed in the run folder.

    Raises:
        UserError: empty prompt, or no NPNet.
    """
    if config.prompt is None or not str(config.prompt).strip():
        raise UserError('no prompt: add prompt="a blue triangle left of a red circle"')
    if not isinstance(config.prompt, str):  # what looks like a number, a list, ... is one
        raise UserError(f"prompt={config.prompt} is no text: quote it twice, 'prompt=\"{config.prompt}\"'")
    load_pipeline = cache(partial(instantiate, config.pipeline.model))
    npnet, pipeline = load_npnet(config, config.npnet, load_pipeline), load_pipeline()
    embedding = pipeline.encode([config.prompt])
    noise = draw_noise([config.seed], pipeline.latent_shape)
    with torch.inference_mode():
        golden = npnet.golden(noise, embedding)

    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, latents in {"standard": noise, "golden": golden}.items():
        (drawn[name],) = to_pil(pipeline.sample(embedding, latents, generator=sampler_generators([config.seed])))
    drawn["side_by_side"] = side_by_side([drawn["standard"], drawn["golden"]])
    origin = {
        "prompt": config.prompt,
        "seed": config.seed,
        "pipeline": config.pipeline.name,
        "npnet": config.npnet,
    }
    for name, image in drawn.items():
        save_png(image, folder / f"{name}.png", {"golden-noise": json.dumps(origin | {"noise": name})})
        print((folder / f"{name}.png").resolve())

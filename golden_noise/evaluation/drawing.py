"""Images that this evaluation draws: every method's noise, the same prompts, seeds and sampler generators."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from golden_noise.errors import UserError
from golden_noise.evaluation.gaussianity import noise_measures
from golden_noise.evaluation.methods import Methods
from golden_noise.evaluation.scores import SHUFFLED, image_path
from golden_noise.files import write_atomically
from golden_noise.images import TEXT, about, save_png, to_pil
from golden_noise.noise import sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.overflow import check_images
from golden_noise.prompts import Prompt

MADE_BY = "made_by.json"
# Settings that only a hash tells, by their names' start, and what it means if they change.
HASHED = {
    "files.": "the files in {} were others",
    "npnet": "npnet had other weights",
    "prompts.texts": "the prompts were others, or in another order",
}


class Drawing:
    """Draws the images of one evaluation, each once: those of an interrupted run are used again.

    Every PNG carries its prompt, seed and the measures of its starting noise, so it tells by itself whether it is the
    wanted image.

    Args:
        settings: what decides each method's images; see `claim`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        methods: Methods,
        prompts: list[Prompt],
        folder: Path,
        settings: dict[str, dict[str, Any]],
        replace: bool = False,
    ):
        self.pipeline, self._noises, self.prompts, self.folder = pipeline, methods, prompts, folder
        self.methods = methods.names
        self.others = other_prompts(prompts) if SHUFFLED in self.methods else prompts
        for method in self.methods:
            own = settings[method]
            if method == SHUFFLED:
                own = own | {"prompts": {"count": len(prompts), "texts": _digest([prompt.text for prompt in prompts])}}
            claim(folder / "images" / method, own, replace)

    def path(self, method: str, position: int) -> Path:
        """The image of one item."""
        return self.folder / image_path(method, self.prompts[position].index)

    def prepare(self, start: int, end: int) -> None:
        """Draw what is missing for a range of prompts. A method's batch is drawn whole, so that it is always the same.

        Raises:
            UserError: an image of that name belongs to another prompt or seed, or a noise or an image is not
                finite.
        """
        end = min(end, len(self.prompts))
        missing = [name for name in self.methods if not all(self._exists(name, i) for i in range(start, end))]
        if not missing:
            return
        prompts, others = self.prompts[start:end], self.others[start:end]
        texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
        noise = self.pipeline.draw_noise(seeds)
        embedding = self.pipeline.encode(texts)
        other_embedding = self.pipeline.encode([prompt.text for prompt in others])
        noises = self._noises.noises(noise, embedding, other_embedding, seeds)
        for name in missing:
            _check_finite(name, noises[name], texts)
            drawn = self.pipeline.sample(embedding, noises[name], generator=sampler_generators(seeds))
            check_images(drawn, prompts, name)
            for i, (image, measures) in enumerate(zip(to_pil(drawn), _rows(noises[name], noise), strict=True)):
                facts = {"prompt": texts[i], "seed": seeds[i], "noise": measures}
                save_png(image, self.path(name, start + i), {TEXT: json.dumps(facts)})

    def noise_measures(self) -> dict[str, dict[str, np.ndarray]]:
        """Measures of every item's noise: measure -> method -> (N,)."""
        count = range(len(self.prompts))
        rows = {method: [about(self.path(method, i))["noise"] for i in count] for method in self.methods}
        names = list(rows[self.methods[0]][0])
        return {name: {m: np.array([row[name] for row in rows[m]]) for m in self.methods} for name in names}

    def _exists(self, method: str, position: int) -> bool:
        path, prompt = self.path(method, position), self.prompts[position]
        found = about(path)
        if found and (found["prompt"], found["seed"]) != (prompt.text, prompt.seed):
            raise UserError(
                f"{path} is of {found['prompt']!r} (seed {found['seed']}), but now item {prompt.index} is "
                f"{prompt.text!r} (seed {prompt.seed}): give another name=NAME or delete that folder"
            )
        return bool(found)


def claim(folder: Path, settings: dict[str, Any], replace: bool) -> None:
    """Record what makes the images in a folder, so that they never mix with those of other settings.

    Args:
        settings: plain containers.
        replace: delete images of other settings instead of refusing them.

    Raises:
        UserError: there are images of other settings, or of unknown origin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / MADE_BY
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if record.exists():
        old = record.read_text("utf-8")
        if old == text:
            return
        if not replace and any(folder.glob("*.png")):
            raise UserError(
                f"{folder} holds images of other settings ({_difference(old, settings)}): "
                "give another name=NAME or delete that folder"
            )
    elif any(folder.glob("*.png")):  # perhaps the user's own, so neither used nor deleted
        raise UserError(f"{folder} holds images that this job did not draw: give another name=NAME or move them away")
    for path in folder.glob("*.png"):  # of other settings
        path.unlink()
    write_atomically(record, text)


def _difference(old: str, new: dict[str, Any]) -> str:
    """The first setting that differs, as `pipeline.steps: 10, now 20`; what only a hash tells, in words."""
    try:
        before, after = _flat(json.loads(old)), _flat(new)
    except ValueError:
        return f"{MADE_BY} is damaged"
    name = next(key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key))
    for prefix, words in HASHED.items():
        if name == prefix or (prefix.endswith(".") and name.startswith(prefix)):
            return words.format(name.removeprefix(prefix))
    return f"{name}: {before.get(name)}, now {after.get(name)}"


def _flat(node: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(node, dict):
        return {prefix: json.dumps(node)}
    flat: dict[str, str] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}".lstrip("."))
    return flat


def _rows(noise: Tensor, standard: Tensor) -> list[dict[str, float]]:
    measures = noise_measures(noise, standard)
    return [{name: float(values[i]) for name, values in measures.items()} for i in range(len(noise))]


def _check_finite(method: str, noise: Tensor, texts: list[str]) -> None:
    bad = (~noise.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"method '{method}' gives starting noise that is not finite for {texts[bad[0]]!r}: "
            "check its network, or leave it out of evaluation.methods"
        )


def other_prompts(prompts: list[Prompt]) -> list[Prompt]:
    """For every prompt one with another text, in a fixed random order.

    Raises:
        UserError: all prompts are the same.
    """
    texts = np.array([prompt.text for prompt in prompts])
    if len(set(texts)) < 2:
        raise UserError("the method 'shuffled' needs at least two different prompts: add prompts or leave it out")
    order = np.random.default_rng(0).permutation(len(prompts))
    while (same := np.flatnonzero(texts[order] == texts)).size:
        # Send every prompt that met itself on to the next place; rotating all of them keeps each used once.
        swap = (same + 1 + np.arange(same.size)) % len(prompts)
        for i, j in zip(same, swap, strict=True):
            order[i], order[j] = order[j], order[i]
    return [prompts[i] for i in order]


def weights_digest(network: nn.Module) -> str:
    """Hash of a network's weights, which tells a retrained network in the same folder from the old one."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def network_settings(network: nn.Module) -> dict[str, Any]:
    """How a network was built: two with the same weights may differ, for instance in `fit` or `unit_variance`."""
    config = dict(getattr(network, "config", {}))
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _digest(node: Any) -> str:
    return hashlib.sha256(json.dumps(node).encode()).hexdigest()

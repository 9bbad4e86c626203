"""Images that this evaluation draws: every method's noise, the same prompts, seeds and sampler generators."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from golden_noise import identity
from golden_noise.errors import UserError
from golden_noise.evaluation.gaussianity import noise_measures
from golden_noise.evaluation.scores import SHUFFLED, image_path
from golden_noise.files import write_atomically
from golden_noise.generation.methods import Methods
from golden_noise.images import TEXT, about, save_png, to_pil
from golden_noise.noise import sampler_generators
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.overflow import check_images
from golden_noise.prompts import Prompt
from golden_noise.sharing.claims import locked

MADE_BY = "made_by.json"


class Drawing:
    """Draws the images of one evaluation, each once: those of an interrupted run are used again.

    Every PNG carries its prompt, seed and the measures of its starting noise, so it tells by itself whether it is the
    wanted image.

    Args:
        others: another prompt for every one, for `shuffled`; see `other_prompts`.
        settings: what decides each method's images; see `claim`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        methods: Methods,
        prompts: list[Prompt],
        others: list[Prompt],
        folder: Path,
        settings: dict[str, dict[str, Any]],
        replace: bool = False,
    ):
        self.pipeline, self._noises, self.prompts, self.folder = pipeline, methods, prompts, folder
        self.methods, self.others = methods.names, others
        with locked(folder):  # of two processes, one is the first to say what the images are
            for method in self.methods:
                own = settings[method]
                if method == SHUFFLED:
                    texts = [[prompt.text, other.text] for prompt, other in zip(prompts, self.others, strict=True)]
                    own = own | {"prompts": {"count": len(prompts), "texts": _digest(texts)}}
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
            check_images(drawn, prompts, name, self.pipeline.dtype)
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
        settings: their identity, see `identity.images`.
        replace: delete images of other settings instead of refusing them.

    Raises:
        UserError: there are images of other settings, or of unknown origin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / MADE_BY
    if record.exists():
        try:
            old = _read(record)
            identity.check(folder, old, settings, "give another name=NAME or delete that folder")
            return
        except UserError:
            if not replace and any(folder.glob("*.png")):
                raise
    elif any(folder.glob("*.png")):  # perhaps the user's own, so neither used nor deleted
        raise UserError(f"{folder} holds images that this job did not draw: give another name=NAME or move them away")
    for path in folder.glob("*.png"):  # of other settings
        path.unlink()
    write_atomically(record, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(record.read_text("utf-8"))
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    raise UserError(f"{record} is damaged: give another name=NAME or delete {record.parent}")


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

    Each is used once. Where one text has more than half of the places that cannot be: then the rest takes turns there.

    Raises:
        UserError: all prompts are the same.
    """
    _, text_N, counts = np.unique([prompt.text for prompt in prompts], return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise UserError(
            "the method 'shuffled' needs at least two different prompts: add prompts or leave it out of "
            "evaluation.methods"
        )
    rng = np.random.default_rng(0)
    frequent = counts.argmax()
    bijective = 2 * counts[frequent] <= len(prompts)
    order_N = _exchanged(text_N, rng) if bijective else _stand_ins(text_N == frequent, rng)
    return [prompts[i] for i in order_N]


def _exchanged(text_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation that gives every place another text; no text may have more than half of the places."""
    order_N = rng.permutation(len(text_N))
    for i in np.flatnonzero(text_N[order_N] == text_N):
        if text_N[order_N[i]] != text_N[i]:
            continue  # mended by an earlier exchange
        # Both places that exchange then hold another text. There is always one to exchange with: at most half of the
        # places have this text, at most half hold it, and place i is among both.
        fits = np.flatnonzero((text_N != text_N[i]) & (text_N[order_N] != text_N[i]))
        j = rng.choice(fits)
        order_N[i], order_N[j] = order_N[j], order_N[i]
    return order_N


def _stand_ins(frequent_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another text for every place where one has more than half of them: the others are used equally often."""
    many, few = (rng.permutation(np.flatnonzero(found_N)) for found_N in (frequent_N, ~frequent_N))
    order_N = np.empty(len(frequent_N), np.int64)
    order_N[many], order_N[few] = np.resize(few, len(many)), many[: len(few)]
    return order_N


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

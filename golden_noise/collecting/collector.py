"""A batch of prompts becomes noise pairs, or failures with their reasons."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from golden_noise.collecting.selection import Selection
from golden_noise.errors import UserError
from golden_noise.metrics.base import Metric
from golden_noise.noise import sampler_generators
from golden_noise.pairs import Failure, NoisePair, Result
from golden_noise.pipelines.base import Pipeline
from golden_noise.pipelines.overflow import advice, are_finite
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.prompts import Prompt
from golden_noise.search.base import NoiseSearch

TENSORS = ("noise", "golden", "embeds", "pooled", "guided")
IMAGES = ("standard image", "golden image")
# Bugs in a program: no prompt causes them, and every prompt meets them.
BROKEN = (TypeError, AttributeError, NameError, ImportError, AssertionError, NotImplementedError)


@dataclass
class Collector:
    """Turns prompts into noise pairs, a batch at a time.

    Args:
        selection: which pairs are kept. None keeps every pair and draws no images, which is several times faster.
        settings: of the search, stored with each pair.
        store_embeds: whether pairs contain their prompt's embedding.
        guided: `steps` and `guidance` of the guided latents that pairs contain, see `Pipeline.clean`; None for none.
        failures_in_a_row: so many failed prompts in a row stop the collection.
    """

    pipeline: Pipeline
    search: NoiseSearch
    metrics: dict[str, Metric]
    selection: Selection | None
    batch_size: int
    settings: dict[str, Any]
    failures_in_a_row: int
    store_embeds: bool = True
    guided: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self._failed = 0  # prompts in a row
        self._worked = False  # whether any prompt has given a pair
        self._errors: dict[type[Exception], Exception] = {}  # the first of each type, until one has

    def results(self, prompts: Sequence[Prompt]) -> Iterator[list[Result]]:
        """A pair or a failure per prompt, in order, each from the noise of the prompt's own seed.

        Raises:
            UserError: too many prompts failed in a row.
            Exception: an error that no prompt causes: a bug, or one that all of the first batch met.
        """
        for start in range(0, len(prompts), self.batch_size):
            results = self._results(prompts[start : start + self.batch_size])
            self._check_first(results)
            self._count_failures(results)
            yield results

    def _results(self, prompts: Sequence[Prompt]) -> list[Result]:
        """The results of a batch, by halves if it fails: that needs less memory, and isolates a bad prompt."""
        try:
            return self._batch(prompts)
        except BROKEN:
            raise
        except Exception as error:  # models, metrics and libraries raise anything
            if len(prompts) == 1:
                return [self._failure(prompts[0], error)]
        # The error is gone by now, and with it the memory of the failed batch.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        middle = len(prompts) // 2
        return [*self._results(prompts[:middle]), *self._results(prompts[middle:])]

    def _failure(self, prompt: Prompt, error: Exception) -> Failure:
        if not self._worked:
            self._errors.setdefault(type(error), error)
        return Failure.of(prompt, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")

    def _check_first(self, results: Sequence[Result]) -> None:
        """Raise the error that all prompts of a batch met, if no prompt has worked before."""
        if any(isinstance(result, NoisePair) for result in results):
            self._worked = True
            self._errors.clear()
        elif len(results) > 1:
            self._raise_common_error(results)

    def _raise_common_error(self, results: Sequence[Result]) -> None:
        """Raise the error behind all these failures, if there is one that is not the user's mistake."""
        for error in self._errors.values():
            prefix = f"{type(error).__name__}: "
            same = all(isinstance(result, Failure) and result.reason.startswith(prefix) for result in results)
            if same and not isinstance(error, UserError):
                raise error

    def _batch(self, prompts: Sequence[Prompt]) -> list[Result]:
        noise = self.pipeline.draw_noise([prompt.seed for prompt in prompts])
        embedding = self.pipeline.encode([prompt.text for prompt in prompts])
        golden = self.search.search(noise, embedding, self.pipeline)
        _check_shape(self.search, golden, noise.shape)
        stored: dict[str, Tensor | None] = {"noise": noise, "golden": golden}
        if self.store_embeds:
            stored |= {"embeds": embedding.embeds, "pooled": embedding.pooled}
        if self.guided:
            with torch.no_grad():
                stored["guided"] = self.pipeline.clean(noise, embedding, self.guided["steps"], self.guided["guidance"])
        halves = {name: tensor.to("cpu", torch.float16) for name, tensor in stored.items() if tensor is not None}
        problems = _problems({name: are_finite(half) for name, half in halves.items()}, "not finite in float16")
        scores: list[dict[str, tuple[float, float]]] = [{} for _ in prompts]
        if self.selection:
            images = self._images(prompts, embedding, noise, golden)
            reason = f"not finite, {advice(self.pipeline.dtype)}"
            drawn = _problems({name: are_finite(side) for name, side in images.items()}, reason)
            problems = [known or new for known, new in zip(problems, drawn, strict=True)]
            self._score(prompts, list(images.values()), problems, scores)
        results: list[Result] = []
        for i, prompt in enumerate(prompts):
            if problem := problems[i]:
                results.append(Failure.of(prompt, problem))
                continue
            accepted = self.selection is None or self.selection.accepts(scores[i])
            tensors = {name: halves[name][i] if name in halves else None for name in TENSORS}
            results.append(NoisePair(prompt, scores=scores[i], accepted=accepted, search=self.settings, **tensors))
        return results

    def _count_failures(self, results: Sequence[Result]) -> None:
        for result in results:
            self._failed = self._failed + 1 if isinstance(result, Failure) else 0
            if isinstance(result, Failure) and self._failed >= self.failures_in_a_row:
                self._raise_common_error(results)
                raise UserError(
                    f"the last {self._failed} prompts all failed (collection.failures_in_a_row):"
                    f" prompt {result.index} {result.prompt!r} with {result.reason}"
                )

    def _images(
        self, prompts: Sequence[Prompt], embedding: PromptEmbedding, noise: Tensor, golden: Tensor
    ) -> dict[str, Tensor]:
        """Images (B, 3, H, W) of the standard and the golden noise; both see the same sampler noise."""
        seeds = [prompt.seed for prompt in prompts]
        return {
            name: self.pipeline.sample(embedding, latents, generator=sampler_generators(seeds))
            for name, latents in zip(IMAGES, (noise, golden), strict=True)
        }

    def _score(
        self,
        prompts: Sequence[Prompt],
        images: Sequence[Tensor],
        problems: list[str | None],
        scores: list[dict[str, tuple[float, float]]],
    ) -> None:
        """Fill in (standard, golden) per metric for the prompts without a problem, and the problems of scores."""
        good = [i for i, problem in enumerate(problems) if problem is None]
        if not good:
            return
        texts = [prompts[i].text for i in good]
        columns: dict[str, list[list[float]]] = {}
        for name, metric in self.metrics.items():
            sides = [metric.score(texts, side[good]) for side in images]
            for side in sides:
                _check_shape(metric, side, (len(good),))
            columns[name] = [side.tolist() for side in sides]
        for row, i in enumerate(good):
            scores[i] = {name: (old[row], new[row]) for name, (old, new) in columns.items()}
            if bad := [name for name, pair in scores[i].items() if not all(map(math.isfinite, pair))]:
                problems[i] = f"not finite: {', '.join(bad)}"


def _check_shape(source: object, result: Tensor, expected: Sequence[int]) -> None:
    """Check the shape that a search or a metric, which anybody may have written, returned."""
    if tuple(result.shape) != tuple(expected):
        raise TypeError(f"{type(source).__name__} gave the shape {tuple(result.shape)} instead of {tuple(expected)}")


def _problems(finite: dict[str, list[bool]], what: str) -> list[str | None]:
    """Per sample the names of the tensors that are not finite; None where all are."""
    rows = zip(*finite.values(), strict=True)
    bad = [[name for name, good in zip(finite, row, strict=True) if not good] for row in rows]
    return [f"{what}: {', '.join(names)}" if names else None for names in bad]

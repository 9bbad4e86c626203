"""The path that DDIM takes for a prompt, walked step by step in both directions."""

from dataclasses import dataclass

from torch import Tensor

from golden_noise.pipelines.base import Pipeline, PromptEmbedding
from golden_noise.search.base import ddim_move


@dataclass(frozen=True)
class DDIMPath:
    """DDIM's schedule of `pipeline` for one batch of prompts. Step i joins the levels i (noisier) and i + 1.

    Attributes:
        timesteps: of the steps, in descending order.
        levels: cumulative alphas (steps + 1,), from the noisiest to DDIM's last, on the pipeline's device.
    """

    pipeline: Pipeline
    prompt: PromptEmbedding
    timesteps: list[int]
    levels: Tensor

    @classmethod
    def of(cls, pipeline: Pipeline, prompt: PromptEmbedding, steps: int) -> "DDIMPath":
        """The path of a given number of steps."""
        timesteps = pipeline.timesteps(steps).tolist()
        alphas = pipeline.alphas_cumprod.to(pipeline.device)
        return cls(pipeline, prompt, timesteps, alphas[[*timesteps, 0]])  # set_alpha_to_one=False ends at alpha 0

    def down(self, latents: Tensor, step: int, guidance: float) -> Tensor:
        """One denoising step of (B, C, H, W) float32 latents, as the sampler takes it."""
        noise = self.pipeline.predict_noise(latents, self.timesteps[step], self.prompt, guidance)
        return ddim_move(latents, noise, self.levels[step], self.levels[step + 1])

    def up(self, latents: Tensor, step: int, guidance: float, refinements: int = 0) -> Tensor:
        """The inverse step: the latents from which `down` would have led here.

        They solve x = move(latents, noise estimate at x). Plain DDIM inversion estimates the noise at the lower latents
        instead; each refinement puts the last solution in and solves again (fixed-point iteration, as in
        arXiv 2309.04907).

        Args:
            latents: (B, C, H, W) float32 at the lower level of `step`.
            refinements: 0 is plain DDIM inversion, whose errors add up along a path.
        """
        upper = latents
        for _ in range(1 + refinements):
            noise = self.pipeline.predict_noise(upper, self.timesteps[step], self.prompt, guidance)
            upper = ddim_move(latents, noise, self.levels[step + 1], self.levels[step])
        return upper

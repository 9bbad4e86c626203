"""The interface of a diffusion pipeline: what searching, training and comparing noises need of it, and no more.

Shapes: B batch, C latent channels, H x W latent size, L tokens, D width of the prompt embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.pipelines.loading import (
    load_diffusers,
    load_lora,
    load_unet,
    pick_device,
    pick_dtype,
    set_scheduler,
)


@dataclass(frozen=True)
class PromptEmbedding:
    """Encoded prompts and their empty counterpart for guidance; `pooled` parts only where the denoiser takes them."""

    embeds: Tensor  # (B, L, D), what NPNet sees
    negative_embeds: Tensor | None = None  # (B, L, D); None where there will be no guidance
    pooled: Tensor | None = None  # (B, P)
    negative_pooled: Tensor | None = None  # (B, P)
    texts: tuple[str, ...] = ()  # B prompts, for searches that judge images

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, index: slice | Tensor | list[int]) -> "PromptEmbedding":
        """The same for a part of the batch, or for the batch in another order."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        texts = parts.pop("texts")
        chosen: dict[str, Any] = {name: None if part is None else part[index] for name, part in parts.items()}
        places = torch.arange(len(self))[index].tolist()
        return PromptEmbedding(**chosen, texts=tuple(texts[i] for i in places) if texts else ())


class Pipeline(ABC):
    """A diffusers pipeline with the sampler settings of its config.

    Args:
        pipe: the diffusers pipeline, already on its device and in its dtype.
        height: image height in pixels, as a multiple of 8.
        width: image width in pixels, likewise.
        steps: denoising steps of `sample`.
        guidance: classifier-free guidance of `sample`; 1 or less switches it off.
        guidance_rescale: Lin et al. 2305.08891 section 3.4; 0 switches it off.

    Attributes:
        diffusers_class: the pipelines of diffusers that a family reads.
        parts: arguments of theirs that replace what a folder or the hub holds.
    """

    diffusers_class: ClassVar[type[DiffusionPipeline]]
    parts: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        pipe: DiffusionPipeline,
        height: int,
        width: int,
        steps: int,
        guidance: float,
        guidance_rescale: float = 0.0,
    ):
        self.pipe = pipe
        self.height, self.width = height, width
        self.steps, self.guidance, self.guidance_rescale = steps, guidance, guidance_rescale
        pipe.set_progress_bar_config(disable=True)

    @classmethod
    def load(
        cls,
        source: str,
        device: str = "auto",
        dtype: str = "auto",
        variant: str | None = None,
        revision: str | None = None,
        scheduler: Mapping[str, Any] | None = None,
        unet: Mapping[str, Any] | None = None,
        lora: Mapping[str, Any] | None = None,
        **settings,
    ) -> Self:
        """Load from a local folder or a hub id.

        Args:
            source: folder written by `save_pretrained`, or a hub id.
            device: "auto" takes a GPU if there is one.
            dtype: "auto" is half precision on a GPU and float32 elsewhere.
            variant: file variant on the hub, such as "fp16".
            revision: branch, tag or commit on the hub; a folder has none.
            scheduler: class `name` and arguments of another sampler than the pipeline's own; the noise schedule stays.
            unet: weights of a distilled denoiser: `source` (folder or hub id), `weight_name` (the file inside), and
                `revision`.
            lora: likewise adapters, which are merged into the models.
            settings: height, width, steps, guidance, guidance_rescale.

        Raises:
            UserError: a source is missing or holds something else, or no such device, dtype or scheduler.
        """
        place = pick_device(device)
        kind = pick_dtype(dtype, place)
        pipe = load_diffusers(cls.diffusers_class, source, kind, variant, revision, **cls.parts)
        if scheduler is not None:
            set_scheduler(pipe, **scheduler)
        if unet is not None:
            load_unet(pipe, **unet)
        if lora is not None:
            load_lora(pipe, **lora)
        return cls(pipe.to(place), **settings)

    @property
    def device(self) -> torch.device:
        return self.pipe._execution_device

    @property
    def dtype(self) -> torch.dtype:
        return self.denoiser.dtype

    @property
    def denoiser(self) -> Any:
        """The diffusers model that predicts the noise."""
        return self.pipe.unet

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one noise."""
        scale = self.pipe.vae_scale_factor
        return self.denoiser.config.in_channels, self.height // scale, self.width // scale

    @cached_property
    def _ddim(self) -> DDIMScheduler:
        # Configs that lack clip_sample would turn it on, and then no step could be inverted.
        return DDIMScheduler.from_config(self.pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False)

    @property
    def alphas_cumprod(self) -> Tensor:
        """Cumulative alphas (1000,) float32 on the CPU: 1 is no noise, 0 is all noise."""
        return self._ddim.alphas_cumprod

    def timesteps(self, steps: int) -> Tensor:
        """DDIM's timesteps (steps,) int64 in descending order, at the model's own spacing.

        Raises:
            UserError: a schedule whose steps cannot be undone.
        """
        option = "pipeline.model.scheduler"
        if self._ddim.config.timestep_spacing == "linspace":  # DDIM's own steps do not lead from one to the next
            raise UserError(
                f"timestep_spacing=linspace cannot be inverted: {option}.timestep_spacing=leading or trailing"
            )
        self._ddim.set_timesteps(steps)
        if self.alphas_cumprod[self._ddim.timesteps].min() == 0:  # nothing of the image is left there
            raise UserError(
                f"a step from zero terminal SNR cannot be inverted: {option}.rescale_betas_zero_snr=false, "
                "or timestep_spacing=leading"
            )
        return self._ddim.timesteps

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Encode prompts with the pipeline's own text encoders."""

    @abstractmethod
    def denoise(self, latents: Tensor, timestep: int, embeds: Tensor, pooled: Tensor | None) -> Tensor:
        """One raw call of the denoiser (B, C, H, W), in the model's own parameterisation."""

    @torch.inference_mode()
    def predict_noise(self, latents: Tensor, timestep: int, prompt: PromptEmbedding, guidance: float) -> Tensor:
        """Guided noise estimate eps_w = eps(0) + w (eps(c) - eps(0)), whatever the model predicts.

        Args:
            latents: (B, C, H, W) at the noise level of `timestep`, any float dtype.
            guidance: w; 1 needs only the conditional branch and 0 only the unconditional one.

        Returns:
            (B, C, H, W) float32.
        """
        model_input = latents.to(self.device, self.dtype)
        if guidance == 1:
            output = self.denoise(model_input, timestep, prompt.embeds, prompt.pooled)
        elif guidance == 0:
            assert prompt.negative_embeds is not None
            output = self.denoise(model_input, timestep, prompt.negative_embeds, prompt.negative_pooled)
        else:
            output = self._guided(model_input, timestep, prompt, guidance)
        return self._as_noise(output.float(), model_input.float(), timestep)

    def _guided(self, latents: Tensor, timestep: int, prompt: PromptEmbedding, guidance: float) -> Tensor:
        assert prompt.negative_embeds is not None
        pooled = None
        if prompt.pooled is not None and prompt.negative_pooled is not None:
            pooled = torch.cat([prompt.negative_pooled, prompt.pooled])
        both = self.denoise(
            torch.cat([latents, latents]),
            timestep,
            torch.cat([prompt.negative_embeds, prompt.embeds]),
            pooled,
        )
        unconditional, conditional = both.float().chunk(2)
        guided = unconditional + guidance * (conditional - unconditional)
        if self.guidance_rescale > 0:
            guided = rescale_noise_cfg(guided, conditional, self.guidance_rescale)
        return guided

    def _as_noise(self, output: Tensor, latents: Tensor, timestep: int) -> Tensor:
        kind = self.pipe.scheduler.config.prediction_type
        if kind == "epsilon":
            return output
        if kind == "v_prediction":
            alpha = self.alphas_cumprod[int(timestep)].to(latents.device)
            return alpha.sqrt() * output + (1 - alpha).sqrt() * latents
        raise UserError(f"the scheduler predicts {kind!r}; searches need 'epsilon' or 'v_prediction'")

    @torch.inference_mode()
    def sample(
        self,
        prompt: PromptEmbedding,
        latents: Tensor,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> Tensor:
        """Images (B, 3, height, width) float32 in [0, 1] by the diffusers pipeline itself, from the given latents.

        Args:
            latents: (B, C, H, W) of unit variance; the pipeline applies its scheduler's own scale.
            steps: denoising steps, the config's by default.
            guidance: guidance scale, the config's by default.
            generator: for stochastic samplers; use the same one for every side of a comparison.

        Raises:
            UserError: the latents do not fit the image size (SDXL would silently draw another size).
        """
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise UserError(f"latents of shape {tuple(latents.shape[1:])} do not fit {self.latent_shape}")
        images = self.pipe(
            prompt_embeds=prompt.embeds,
            negative_prompt_embeds=prompt.negative_embeds,
            **self.pooled_arguments(prompt),
            latents=latents.to(self.device, self.dtype),
            height=self.height,
            width=self.width,
            num_inference_steps=self.steps if steps is None else steps,
            guidance_scale=self.guidance if guidance is None else guidance,
            guidance_rescale=self.guidance_rescale,
            generator=generator,
            output_type="pt",
        ).images
        return images.float()

    def pooled_arguments(self, prompt: PromptEmbedding) -> dict[str, Tensor | None]:
        """Further prompt arguments of the diffusers call."""
        return {}

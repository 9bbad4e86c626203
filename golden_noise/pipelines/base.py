"""The interface of a diffusion pipeline: what searching, training and comparing noises need of it, and no more.

Shapes: B batch, C latent channels, H x W latent size, L tokens, D width of the prompt embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from golden_noise.device import dtype_name, pick_device
from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.pipelines.differentiable import decode, walk
from golden_noise.pipelines.long_prompts import check_choice, encode
from golden_noise.pipelines.lora import load_loras
from golden_noise.pipelines.memory import to_device
from golden_noise.pipelines.overflow import keep_overflow
from golden_noise.pipelines.parts import check_scheduler, load_unet, load_vae, set_scheduler
from golden_noise.pipelines.prompt_embedding import ARGUMENTS, PromptEmbedding
from golden_noise.pipelines.schedules import DDIM, Schedule
from golden_noise.pipelines.single_file import load_pipeline


class Pipeline(ABC):
    """A diffusers pipeline with the sampler settings of its config.

    Args:
        pipe: the diffusers pipeline, already on its device and in its dtype.
        height: image height in pixels, as a multiple of 8.
        width: image width in pixels, likewise.
        steps: denoising steps of `sample`.
        guidance: classifier-free guidance of `sample`; 1 or less switches it off.
        guidance_rescale: Lin et al. 2305.08891 section 3.4; 0 switches it off.
        negative_prompt: what guidance leads away from, instead of the family's empty prompt.
        prompt_syntax: "weighted" reads weights in prompts, see `golden_noise.pipelines.prompt_syntax`.
        prompt_chunks: how many times the tokens that a CLIP reads at once, see `golden_noise.pipelines.long_prompts`.

    Raises:
        UserError: a guidance rescale for flow matching, for which diffusers has none.

    Attributes:
        diffusers_class: the pipelines of diffusers that a family reads.
        denoiser_name: their part that predicts the noise.
        clip_layer: compel's name for what the denoiser sees of its CLIPs; None where it has other text encoders too.
        conditions: parts of a PromptEmbedding that it takes.
        flow: whether the models were trained by flow matching, and not by diffusion.
        half: the dtype that the models were made to run in on a GPU.
        parts: arguments of theirs that replace what a folder or the hub holds.
    """

    diffusers_class: ClassVar[type[DiffusionPipeline]]
    denoiser_name: ClassVar[str] = "unet"
    clip_layer: ClassVar[str | None] = None
    conditions: ClassVar[tuple[str, ...]] = ("embeds",)
    flow: ClassVar[bool] = False
    half: ClassVar[str] = "float16"
    parts: ClassVar[dict[str, Any]] = {}
    _first: tuple[torch.device, torch.dtype] | None = None  # of the denoiser's first weight
    _found: tuple[torch.device, torch.dtype]

    def __init__(
        self,
        pipe: DiffusionPipeline,
        height: int,
        width: int,
        steps: int,
        guidance: float,
        guidance_rescale: float = 0.0,
        negative_prompt: str = "",
        prompt_syntax: str = "plain",
        prompt_chunks: int = 1,
    ):
        self.pipe = pipe
        self.height, self.width = height, width
        self.steps, self.guidance, self.guidance_rescale = steps, guidance, guidance_rescale
        self.negative_prompt = negative_prompt
        self.prompt_syntax, self.prompt_chunks = prompt_syntax, prompt_chunks
        if self.flow and guidance_rescale:
            raise UserError(f"pipeline.guidance_rescale={guidance_rescale} must be 0: flow matching has no such option")

    @classmethod
    def load(
        cls,
        source: str,
        device: str = "auto",
        dtype: str = "auto",
        variant: str | None = None,
        revision: str | None = None,
        config: str | None = None,
        scheduler: Mapping[str, Any] | None = None,
        vae: Mapping[str, Any] | None = None,
        unet: Mapping[str, Any] | None = None,
        loras: Mapping[str, Mapping[str, Any]] | None = None,
        memory: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """Load from a local folder, a hub id or one file.

        Args:
            source: folder written by `save_pretrained`, a hub id, or one .safetensors file (also ORG/NAME/FILE).
            device: "auto" takes a GPU if there is one.
            dtype: "auto" is the family's half precision on a GPU and float32 elsewhere.
            variant: files to prefer where there are such, like "fp16".
            revision: branch, tag or commit on the hub; a folder has none.
            config: of one file: folder or hub id of a pipeline that describes its models; None: known by its tensors.
            scheduler: class `name` and arguments of another sampler than the pipeline's own; the noise schedule stays.
            vae: another VAE: `source` (folder, hub id or one file) and `revision`.
            unet: weights of a distilled denoiser: `source` (a file, or a folder or hub id that has `weight_name`), and
                `revision`.
            loras: likewise adapters, by a name for each, which are merged into the models by their `strength` (1).
            memory: options of `golden_noise.pipelines.memory.to_device`.
            **settings: those of the class.

        Raises:
            UserError: a source is missing or holds something else, no such device, dtype or scheduler, or a memory
                option that cannot be used.
        """
        check_choice(cls, settings.get("prompt_syntax", "plain"), settings.get("prompt_chunks", 1))
        target = pick_device(device)
        precision = getattr(torch, dtype_name(dtype, target.type, cls.half))
        pipe = load_pipeline(cls.diffusers_class, source, precision, variant, revision, config, **cls.parts)
        if scheduler is not None:
            set_scheduler(pipe, **scheduler)
        check_scheduler(pipe, cls.flow, settings["steps"])
        if vae is not None:
            load_vae(pipe, **vae)
        if unet is not None:
            load_unet(pipe, **unet)
        load_loras(pipe, loras or {})
        to_device(pipe, getattr(pipe, cls.denoiser_name), target, **(memory or {}))
        keep_overflow(pipe)
        pipe.set_progress_bar_config(disable=True)
        return cls(pipe, **settings)

    @property
    def loaded(self) -> Self:
        """Itself: a `Pipeline` can be passed as a `LazyPipeline`."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the denoiser runs."""
        return self._placed()[0]

    @property
    def dtype(self) -> torch.dtype:
        """That of the denoiser's weights."""
        return self._placed()[1]

    def _placed(self) -> tuple[torch.device, torch.dtype]:
        """The denoiser's device and dtype, as diffusers finds them.

        It asks every module of every model, which takes a quarter as long as a call of the miniature's denoiser. So it
        is asked again only where the first weight has changed either.
        """
        first = next(self.denoiser.parameters())
        if self._first != (first.device, first.dtype):
            self._first = first.device, first.dtype
            self._found = self.pipe._execution_device, self.denoiser.dtype
        return self._found

    @property
    def denoiser(self) -> Any:
        """The diffusers model that predicts the noise."""
        return getattr(self.pipe, self.denoiser_name)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one noise."""
        scale = self.pipe.vae_scale_factor
        return self.denoiser.config.in_channels, self.height // scale, self.width // scale

    def draw_noise(self, seeds: Sequence[int]) -> Tensor:
        """Starting noise (B, C, H, W) float32 on the CPU that seeds fix, rounded to the pipeline's dtype.

        Rounded here, once, it is the same number that is searched from, that a network sees, that is stored, and that
        images are drawn from.
        """
        return draw_noise(seeds, self.latent_shape).to(self.dtype).float()

    @cached_property
    def schedule(self) -> Schedule:
        """The noise levels that searches walk along; the sampler of the config may take others."""
        return DDIM(self.pipe.scheduler.config)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Encode prompts, and as many negative ones, with the pipeline's own text encoders."""
        self.pipe.maybe_free_model_hooks()  # an offloaded denoiser leaves the GPU to the text encoders
        # None is not the same as empty texts: SDXL takes zeros instead of encoding them.
        negative = [self.negative_prompt] * len(prompts) if self.negative_prompt else None
        if (self.prompt_syntax, self.prompt_chunks) == ("plain", 1):
            embedding = self._encode(list(prompts), negative)
        else:
            embedding = encode(self, prompts, negative, self.prompt_syntax, self.prompt_chunks)
        return replace(embedding, texts=tuple(prompts))

    @abstractmethod
    def _encode(self, prompts: list[str], negative: list[str] | None) -> PromptEmbedding:
        """Encode prompts and negative prompts, None for the family's own empty one."""

    @abstractmethod
    def denoise(self, latents: Tensor, timestep: float, prompt: PromptEmbedding) -> Tensor:
        """One raw call of the denoiser (B, C, H, W) for `prompt` alone, in the model's own parameterisation."""

    def predict(self, latents: Tensor, timestep: float, prompt: PromptEmbedding, guidance: float) -> Tensor:
        """Guided prediction for `schedule.move`: p_w = p(0) + w (p(c) - p(0)), whatever the model predicts.

        Gradients pass: who needs none says so (`torch.no_grad`).

        Args:
            latents: (B, C, H, W) at the noise level of `timestep`, any float dtype.
            guidance: w; 1 needs only the conditional branch and 0 only the unconditional one.

        Returns:
            (B, C, H, W) float32.
        """
        model_input = latents.to(self.device, self.dtype)
        output = self._guided(model_input, timestep, prompt, guidance).float()
        return self.schedule.prediction(output, model_input.float(), timestep)

    def _guided(self, latents: Tensor, timestep: float, prompt: PromptEmbedding, guidance: float) -> Tensor:
        """The denoiser's output (B, C, H, W) with guidance w."""
        if guidance == 1:
            return self.denoise(latents, timestep, prompt)
        if guidance == 0:
            assert prompt.negative is not None, "encoded without the negative part that guidance 0 needs"
            return self.denoise(latents, timestep, prompt.negative)
        both = self.denoise(torch.cat([latents, latents]), timestep, prompt.after_negative())
        unconditional, conditional = both.float().chunk(2)
        guided = unconditional + guidance * (conditional - unconditional)
        if self.guidance_rescale > 0 and guidance > 1:  # as diffusers, which has no guidance below 1
            guided = rescale_noise_cfg(guided, conditional, self.guidance_rescale)
        return guided

    def generate(
        self,
        noise: Tensor,
        prompt: PromptEmbedding,
        steps: int | None = None,
        guidance: float | None = None,
        jacobian_steps: int | None = None,
        checkpointing: bool = False,
        preview_steps: int | None = None,
    ) -> Tensor:
        """Images (B, 3, height, width) float32 in [0, 1] along the deterministic path of `schedule`, with gradients.

        They are those of `sample` where the pipeline's sampler is that path (DDIM, or Euler of flow matching).

        Args:
            noise: (B, C, H, W) of unit variance.
            steps: denoising steps, the config's by default.
            guidance: guidance scale, the config's by default; 1 or less is none.
            jacobian_steps: at how many of the last steps gradients pass through the denoiser. At the others they pass
                along the linear part of the step only: 0 is NoiseRefine's MSD (arXiv 2412.03895), None, all, is that
                of ReNO (2406.04312) and HyperNoise (2508.09968).
            checkpointing: compute each step again in the backward pass: less memory, more time.
            preview_steps: take this many of the steps, the last of them straight to the end: what the image is then
                predicted to be. None: all.

        Raises:
            UserError: see `differentiable.walk`.
        """
        clean = self.clean(noise, prompt, steps, guidance, jacobian_steps, checkpointing, preview_steps)
        return decode(self.pipe.vae, clean, checkpointing)

    def clean(
        self,
        noise: Tensor,
        prompt: PromptEmbedding,
        steps: int | None = None,
        guidance: float | None = None,
        jacobian_steps: int | None = None,
        checkpointing: bool = False,
        preview_steps: int | None = None,
    ) -> Tensor:
        """The latents (B, C, H, W) float32 that `generate` decodes."""
        steps = self.steps if steps is None else steps
        guidance = self.guidance if guidance is None else guidance
        return walk(self, noise, prompt, steps, guidance, jacobian_steps, checkpointing, preview_steps)

    @torch.no_grad()
    def sample(
        self,
        prompt: PromptEmbedding,
        latents: Tensor,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> Tensor:
        """Images (B, 3, height, width) float32 in [0, 1] by the diffusers pipeline itself, from the given latents.

        Where the VAE overflows, pixels are NaN: see `check_images`.

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
            **self.prompt_arguments(prompt),
            **self.call_arguments,
            latents=self.pack(latents.to(self.device, self.dtype)),
            height=self.height,
            width=self.width,
            num_inference_steps=self.steps if steps is None else steps,
            guidance_scale=self.guidance if guidance is None else guidance,
            generator=generator,
            output_type="pt",
        ).images
        return images.float()

    def pack(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) as the diffusers call takes them."""
        return latents

    def prompt_arguments(self, prompt: PromptEmbedding) -> dict[str, Tensor | None]:
        """The prompt as arguments of the diffusers call."""
        arguments: dict[str, Tensor | None] = {}
        for prefix, part in {"": prompt, "negative_": prompt.negative}.items():
            if part is not None:
                arguments |= {prefix + ARGUMENTS[name]: tensor for name, tensor in part.tensors.items()}
        return arguments

    @property
    def call_arguments(self) -> dict[str, Any]:
        """Further arguments of the family's diffusers call."""
        return {} if self.flow else {"guidance_rescale": self.guidance_rescale}

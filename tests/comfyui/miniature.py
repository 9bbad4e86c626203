"""Test-only nodes: the bundled miniature as ComfyUI's own MODEL, CLIP and VAE, and a look at what samplers get.

As a checkpoint file the miniature could not be loaded: ComfyUI knows SDXL by its sizes. ComfyUI loads this file as a
custom node; tests import it too.
"""

import json
from pathlib import Path

import comfy.model_base
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.utils
import torch
from comfy.latent_formats import LatentFormat
from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import load_file

from golden_noise.hub import PACKAGE

PIPELINE = PACKAGE / "shapes/weights/pipeline"
CPU = torch.device("cpu")
WORDS, VOCABULARY = "text_model.embeddings.token_embedding.weight", 49_408  # the latter is fixed in ComfyUI


class Times(float):
    """A multiplier that is no integer; ComfyUI multiplies numbers of channels by it."""

    def __mul__(self, channels):
        return round(float(self) * channels)

    __rmul__ = __mul__


class Latents(LatentFormat):
    latent_channels = 4
    scale_factor = json.loads((PIPELINE / "vae/config.json").read_text())["scaling_factor"]


class Config(comfy.supported_models.SDXL):
    latent_format = Latents
    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}  # noqa: RUF012


UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "channel_mult": (1, Times(1.5), 2),
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1, 1, 1],
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "context_dim": 128,
    "num_classes": "sequential",
    "adm_in_channels": 112,
    "legacy": False,
}


class Denoiser(comfy.model_base.SDXL):
    """The miniature's UNet. Its pixels are 4 to a latent, where SDXL has 8."""

    def __init__(self, config):
        super().__init__(config, device=CPU)
        self.embedder = Timestep(8)

    def encode_adm(self, **arguments):
        return super().encode_adm(**arguments | {side: arguments[side] // 2 for side in ("width", "height")})


class TextEncoder(comfy.sdxl_clip.SDXLClipModel):
    """Both CLIPs, at the miniature's size."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        for name, folder in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")):
            config = json.loads((PIPELINE / folder / "config.json").read_text())
            special = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}
            encoder = comfy.sd1_clip.SDClipModel(
                device=device,
                max_length=config["max_position_embeddings"],
                layer="hidden",
                layer_idx=-2,
                textmodel_json_config=config,
                dtype=dtype,
                special_tokens=special,
                layer_norm_hidden_state=False,
                model_options=model_options or {},
            )
            missing, unexpected = encoder.load_sd(_text_weights(folder))
            assert not unexpected and {*missing} <= {"text_projection.weight"}, (missing, unexpected)
            setattr(self, name, encoder)
        self.dtypes = {dtype}


class Tokenizer(comfy.sdxl_clip.SDXLTokenizer):
    """Both tokenizers, which are the same one here."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        self.clip_l = self.clip_g = comfy.sd1_clip.SDTokenizer(str(PIPELINE / "tokenizer"), max_length=16)


class Target:
    """What ComfyUI's CLIP is built of."""

    params: dict = {}  # noqa: RUF012
    clip, tokenizer = TextEncoder, Tokenizer


class Autoencoder:
    """diffusers' VAE, behind the two methods of ComfyUI's that the nodes call."""

    def __init__(self):
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL.from_pretrained(PIPELINE / "vae", dtype=torch.float32).eval()

    @torch.no_grad()
    def decode(self, latents_BCHW):
        images_BCHW = self.vae.decode(latents_BCHW.float()).sample
        return (images_BCHW / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    @torch.no_grad()
    def encode(self, pixels_BHWC):
        return self.vae.encode(pixels_BHWC.movedim(-1, 1) * 2 - 1).latent_dist.mean


def load_model():
    """MODEL: the denoiser, whose weights have ComfyUI's names by ComfyUI's own table."""
    config = Config(UNET)
    config.set_inference_dtype(torch.float32, None)
    denoiser = Denoiser(config)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    weights = _floats(PIPELINE / "unet/diffusion_pytorch_model.safetensors")
    denoiser.diffusion_model.load_state_dict({names[name]: value for name, value in weights.items()})
    return ModelPatcher(denoiser, load_device=CPU, offload_device=CPU)


def load_clip():
    """CLIP."""
    return comfy.sd.CLIP(Target, model_options={"dtype": torch.float32})


def _text_weights(folder: str) -> dict[str, torch.Tensor]:
    """The weights of a text encoder under ComfyUI's names, with rows of zeros for words that there are not."""
    weights = _floats(PIPELINE / folder / "model.safetensors")
    kept = ("text_model.", "text_projection.")
    weights = {name if name.startswith(kept) else f"text_model.{name}": value for name, value in weights.items()}
    words = weights[WORDS]
    return weights | {WORDS: torch.cat([words, words.new_zeros(VOCABULARY - len(words), words.shape[1])])}


def _floats(file: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(file).items()}


class LoadMiniature(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        outputs = [io.Model.Output(), io.Clip.Output(), io.Vae.Output()]
        return io.Schema("LoadMiniature", category="tests", outputs=outputs)

    @classmethod
    def execute(cls):
        return io.NodeOutput(load_model(), load_clip(), Autoencoder())


class GivenNoise(io.ComfyNode):
    """SAMPLER that returns the noise that it is given, before any scale: what the denoiser would start from."""

    @classmethod
    def define_schema(cls):
        return io.Schema("GivenNoise", category="tests", outputs=[io.Sampler.Output()])

    @classmethod
    def execute(cls):
        return io.NodeOutput(NoNoiseChanged())


class NoNoiseChanged:
    """A sampler without steps."""

    def sample(
        self, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=None
    ):
        return guider.inner_model.process_latent_in(noise)  # which the guider undoes


class MiniatureExtension(ComfyExtension):
    async def get_node_list(self):
        return [LoadMiniature, GivenNoise]


async def comfy_entrypoint():
    return MiniatureExtension()

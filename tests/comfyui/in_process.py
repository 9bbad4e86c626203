"""The miniature in this process, driven as ComfyUI's sampler nodes drive a model. Import it after ComfyUI is there."""

import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import torch

from tests.comfyui.miniature import Autoencoder, NoNoiseChanged, load_clip, load_model


class Miniature:
    """MODEL, CLIP and VAE."""

    def __init__(self):
        self.model, self.clip, self.vae = load_model(), load_clip(), Autoencoder()

    @torch.no_grad()
    def encode(self, prompt, **options):
        """CONDITIONING."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt), add_dict=options)

    def batch(self, prompts):
        """CONDITIONING of one entry that holds a prompt for every image."""
        tensors, options = zip(*(self.encode(prompt)[0] for prompt in prompts), strict=True)
        return [[torch.cat(tensors), {"pooled_output": torch.cat([each["pooled_output"] for each in options])}]]

    @torch.no_grad()
    def sample(self, model, positive, noise, scheduler="ddim_uniform"):
        """Latents, in four steps without guidance."""
        options = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": scheduler, "disable_pbar": True}
        prompts = {"positive": positive, "negative": positive}
        return comfy.sample.sample(model, noise.clone(), **prompts, latent_image=torch.zeros_like(noise), **options)

    @torch.no_grad()
    def given(self, model, positive, noise, latent=None, sigma=None):
        """The noise that a sampler of the MODEL gets."""
        latent = torch.zeros_like(noise) if latent is None else latent
        start = model.get_model_object("model_sampling").sigma_max if sigma is None else sigma
        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds({"positive": positive} if positive else {})
        sigmas = torch.tensor([float(start), 0.0])
        return guider.sample(noise.clone(), latent, NoNoiseChanged(), sigmas, disable_pbar=True, seed=0)


def conds(conditioning):
    """CONDITIONING as guiders hold it."""
    return comfy.sampler_helpers.convert_cond(conditioning)


def noise(seed, count=1, size=(8, 8)):
    """As ComfyUI's nodes draw it."""
    return comfy.sample.prepare_noise(torch.zeros(count, 4, *size), seed)

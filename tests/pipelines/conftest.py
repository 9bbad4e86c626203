import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from golden_noise.pipelines.sdxl import SDXLPipeline

SETTINGS = {"height": 32, "width": 32, "steps": 4, "guidance": 3.0}


@pytest.fixture(scope="session")
def sdxl(tiny_sdxl):
    return SDXLPipeline.load(str(tiny_sdxl), device="cpu", **SETTINGS)


@pytest.fixture(scope="session")
def build(sdxl):
    """The same models with other scheduler settings or sampler settings."""

    def build_pipeline(scheduler: type = DDIMScheduler, prediction: str = "epsilon", **settings) -> SDXLPipeline:
        components = sdxl.pipe.components
        other = scheduler.from_config(components["scheduler"].config, prediction_type=prediction)
        pipe = StableDiffusionXLPipeline(**components | {"scheduler": other}, add_watermarker=False)
        return SDXLPipeline(pipe, **SETTINGS | settings)

    return build_pipeline


@pytest.fixture(scope="session")
def alphas() -> torch.Tensor:
    """Cumulative alphas of SDXL's schedule, by its definition."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def adapters(model, targets):
    """Tensors of random adapters for a model, in the names of diffusers."""
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    model.add_adapter(config)
    return convert_state_dict_to_diffusers(get_peft_model_state_dict(model))


@pytest.fixture(scope="module")
def layers(tiny_sdxl):
    """Adapters for a U-Net and a text encoder, by part."""
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    return {
        "unet": adapters(pipe.unet, ["to_q", "to_v"]),
        "text_encoder": adapters(pipe.text_encoder, ["q_proj", "v_proj"]),
        "text_encoder_2": adapters(pipe.text_encoder_2, ["q_proj"]),
    }


@pytest.fixture
def lora(layers, tmp_path):
    """Writes a file with adapters for some parts, and gives the option `loras` that names it."""

    def write(*parts, rename=None):
        tensors = {f"{part}.{name}": tensor for part in parts for name, tensor in layers[part].items()}
        tensors = {rename(i, name) if rename else name: x for i, (name, x) in enumerate(sorted(tensors.items()))}
        save_file(tensors, tmp_path / "w.safetensors")
        return {"w": {"source": str(tmp_path), "weight_name": "w.safetensors"}}

    return write

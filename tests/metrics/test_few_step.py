"""The presets of the published few-step table, with all five metrics, on tiny builds."""

import json

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from golden_noise.evaluation.job import evaluate
from golden_noise.npnet import NPNet

METRICS = ["pickscore", "hpsv21", "aes", "imagereward", "clipscore"]


@pytest.fixture
def distilled(tiny_sdxl, tmp_path):
    """Writes distilled weights for the tiny build under the name that a config gives them."""

    def write(part, weight_name):
        unet = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl).unet
        file = tmp_path / "distilled" / weight_name
        file.parent.mkdir(parents=True)
        if part == "unet":
            save_file(unet.state_dict(), file)
        else:
            unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
            layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
            StableDiffusionXLPipeline.save_lora_weights(file.parent, unet_lora_layers=layers, weight_name=file.name)
        return f"pipeline.model.{part}.source={tmp_path / 'distilled'}"

    return write


@pytest.fixture
def tiny_metrics(clip, hps_weights, aes_weights, imagereward_weights, bert_tokenizer):
    return [
        f"metric.pickscore.model={clip}",
        f"metric.pickscore.processor={clip}",
        f"metric.hpsv21.weights={hps_weights}",
        f"metric.hpsv21.model={clip}",
        f"metric.aes.weights='{aes_weights}'",
        f"metric.aes.model={clip}",
        "metric.aes.sha256=null",
        f"metric.imagereward.weights={imagereward_weights}",
        f"metric.imagereward.tokenizer={bert_tokenizer}",
        f"metric.clipscore.model={clip}",
    ]


@pytest.mark.parametrize(
    "preset, part, steps, weight_name",
    [
        (["published_few_step"], "unet", 4, "sdxl_lightning_4step_unet.safetensors"),
        (["published_few_step", "pipeline=lcm"], "loras.lcm", 4, "pytorch_lora_weights.safetensors"),
        (["published_pcm"], "loras.pcm", 8, "sdxl/pcm_sdxl_normalcfg_8step_converted.safetensors"),
    ],
    ids=["lightning", "lcm", "pcm"],
)
def test_a_row_of_the_table(preset, part, steps, weight_name, tiny_sdxl, distilled, tiny_metrics, tmp_path):
    torch.manual_seed(0)
    npnet = NPNet((4, 8, 8), (16, 128))
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    npnet.save_pretrained(tmp_path / "npnet")
    lines = [{"tag": "single_object", "prompt": "a red circle"}, {"tag": "two_object", "prompt": "two crosses"}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tiny = ["height=32", "width=32", "latent_shape=[4,8,8]", "embeds_shape=[16,128]", "model.variant=null"]
    places = [
        f"folder={tmp_path}/run",
        "name=test",
        f"npnet={tmp_path}/npnet",
        f"paths.outputs={tmp_path}",
        "device=cpu",
    ]
    sources = [f"pipeline.model.source={tiny_sdxl}", f"prompts.path={tmp_path}/prompts.jsonl", "logger=csv"]
    options = [f"experiment={preset[0]}", *preset[1:], *(f"pipeline.{option}" for option in tiny), *places, *sources]
    config = job_config("evaluate", [*options, *tiny_metrics, distilled(part, weight_name)])
    check(config)
    assert (config.pipeline.steps, config.pipeline.guidance) == (steps, 5.5)
    assert OmegaConf.select(config.pipeline.model, part).weight_name == weight_name
    results = evaluate(config)
    assert set(results["methods"]) >= {"standard", "npnet", "shuffled", "random_shift", "rescaled"}
    compared = {row["metric"] for row in results["comparisons"] if {row["a"], row["b"]} == {"npnet", "standard"}}
    assert compared >= set(METRICS)

"""The nodes."""

from typing import Any

import comfy.sampler_helpers
from comfy_api.latest import ComfyExtension, io

from .families import check_family
from .noise import GoldenNoise, GoldenSource, changing_noise
from .npnets import fingerprint, load_npnet, names, register_folders
from .settings import LONG_PROMPT, OTHER_SIZES, Settings

CATEGORY = "golden noise"
NPNetType = io.Custom("NPNET")


def _settings_inputs() -> list[Any]:
    """What every node that uses a network lets users choose."""
    return [
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=2.0,
            step=0.05,
            tooltip="How far the noise moves: 0 leaves it as it is, 1 makes it golden.",
        ),
        io.Combo.Input(
            "other_sizes",
            options=[*OTHER_SIZES],
            default=OTHER_SIZES[0],
            tooltip="Sizes that the network was not trained for: move every tile of its own size, the centre alone, "
            "or the coarse structure.",
        ),
        io.Combo.Input(
            "long_prompt",
            options=[*LONG_PROMPT],
            default=LONG_PROMPT[0],
            tooltip="Prompts of more than 77 tokens: read the first 77, the mean of all parts, or one part after "
            "the other.",
        ),
    ]


class GoldenNoiseLoad(io.ComfyNode):
    """Loads a network from models/npnet."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="GoldenNoiseLoad",
            display_name="Load NPNet",
            category=CATEGORY,
            description="Loads a network that predicts golden noise.",
            inputs=[io.Combo.Input("npnet", options=names(), tooltip="A file or folder in models/npnet.")],
            outputs=[NPNetType.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, npnet: str) -> str:
        return fingerprint(npnet)

    @classmethod
    def execute(cls, npnet: str) -> Any:
        return io.NodeOutput(load_npnet(npnet))


class GoldenNoiseApply(io.ComfyNode):
    """Lets every sampler of a MODEL start from golden noise."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="GoldenNoiseApply",
            display_name="Golden Noise",
            category=CATEGORY,
            description="Every sampler that uses this MODEL starts from golden noise for its positive prompt. Noise "
            "that is added to an image (denoise below about 0.85) stays as it is.",
            inputs=[io.Model.Input("model"), NPNetType.Input("npnet"), *_settings_inputs()],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, npnet: Any, **settings: Any) -> Any:
        check_family(model)
        return io.NodeOutput(changing_noise(model, GoldenNoise(npnet, Settings(**settings)).in_guider))


class GoldenNoisePredict(io.ComfyNode):
    """Makes NOISE golden, for samplers that take NOISE."""

    @classmethod
    def define_schema(cls) -> Any:
        model = io.Model.Input(
            "model", optional=True, tooltip="What samples. Only networks of model=denoiser_lora need it."
        )
        return io.Schema(
            node_id="GoldenNoisePredict",
            display_name="Golden Noise (noise)",
            category=CATEGORY,
            description="Golden noise for a prompt, for samplers that take NOISE.",
            inputs=[
                io.Noise.Input("noise"),
                NPNetType.Input("npnet"),
                io.Conditioning.Input("positive"),
                *_settings_inputs(),
                model,
            ],
            outputs=[io.Noise.Output()],
        )

    @classmethod
    def execute(cls, noise: Any, npnet: Any, positive: Any, model: Any = None, **settings: Any) -> Any:
        if model is not None:
            check_family(model)
        conds = comfy.sampler_helpers.convert_cond(positive)
        return io.NodeOutput(GoldenSource(noise, GoldenNoise(npnet, Settings(**settings)), conds, model))


class GoldenNoiseScale(io.ComfyNode):
    """Multiplies the noise by a constant: what a network has to beat."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="GoldenNoiseScale",
            display_name="Scale Noise",
            category=CATEGORY,
            description="Every sampler that uses this MODEL starts from its noise times a factor. A network is worth "
            "its cost only if it beats the best factor.",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input(
                    "factor", default=1.0, min=0.0, max=2.0, step=0.01, tooltip="1 leaves the noise as it is."
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, factor: float) -> Any:
        return io.NodeOutput(changing_noise(model, lambda noise, guider: noise * factor))


class GoldenNoiseExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_folders()
        return [GoldenNoiseLoad, GoldenNoiseApply, GoldenNoisePredict, GoldenNoiseScale]

"""Golden noise in ComfyUI: nodes that start any sampler from a better noise. Put this folder into `custom_nodes`."""

from typing import Any

WEB_DIRECTORY = "./web"  # web/docs holds a help page per node


async def comfy_entrypoint() -> Any:
    """The nodes, for ComfyUI. Without it, `core` can be imported anywhere."""
    from .nodes import GoldenNoiseExtension

    return GoldenNoiseExtension()

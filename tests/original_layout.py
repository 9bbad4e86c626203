"""Models of diffusers in the layout of the original code (LDM for SD 1.5, SGM for SDXL), as people share them."""

import re

import torch

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE = [
    (r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block."),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_", "mid.attn_1."),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
]
OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


def original(pipe):
    """The tensors of a pipeline by their original names."""
    tensors = {f"model.diffusion_model.{name}": x for name, x in unet(pipe.unet).items()}
    tensors |= {f"first_stage_model.{name}": x for name, x in vae(pipe.vae).items()}
    two = hasattr(pipe, "text_encoder_2")
    prefix = ("conditioner.embedders.0." if two else "cond_stage_model.") + "transformer.text_model."
    first = {name.removeprefix("text_model."): x for name, x in pipe.text_encoder.state_dict().items()}
    tensors |= {prefix + name: x for name, x in first.items()}
    tensors |= {f"{prefix}embeddings.position_ids": torch.arange(16)[None]}
    if two:
        second = open_clip(pipe.text_encoder_2)
        tensors |= {f"conditioner.embedders.1.model.{name}": x for name, x in second.items()}
    return {name: x.clone().contiguous() for name, x in tensors.items()}


def unet(model):
    return {_unet_name(name, model.config.layers_per_block, model): x for name, x in model.state_dict().items()}


def _unet_name(name, layers, model):
    for end, other in ENDS.items():
        if name.startswith(f"{end}."):
            return name.replace(end, other)
    if name.startswith("mid_block"):
        kind, i, rest = re.match(r"mid_block\.(\w+)\.(\d)\.(.+)", name).groups()
        return f"middle_block.{2 * int(i)}.{_resnet(rest)}" if kind == "resnets" else f"middle_block.1.{rest}"
    side, block, kind, i, rest = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name).groups()
    first = int(block) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{1 + first + layers}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{1 + hasattr(model.up_blocks[int(block)], 'attentions')}.{rest}"
    place = f"input_blocks.{1 + first + int(i)}" if side == "down" else f"output_blocks.{first + int(i)}"
    return f"{place}.0.{_resnet(rest)}" if kind == "resnets" else f"{place}.1.{rest}"


def _resnet(rest):
    part, _, end = rest.rpartition(".")
    return f"{RESNET[part]}.{end}"


def vae(model):
    tensors, levels = {}, len(model.config.up_block_types)
    for name, x in model.state_dict().items():
        for pattern, other in VAE:
            name = re.sub(pattern, other, name)
        if found := re.match(r"decoder\.up_blocks\.(\d+)\.(.+)", name):
            inner = found[2].replace("resnets.", "block.").replace("upsamplers.0.", "upsample.")
            name = f"decoder.up.{levels - 1 - int(found[1])}.{inner}"
        if ".mid.attn_1." in name and name.endswith("weight") and "norm" not in name:
            x = x[:, :, None, None]  # a convolution of one pixel
        tensors[name] = x
    return tensors


def open_clip(model):
    tensors, halves = {}, {}
    for name, x in model.state_dict().items():
        for part, other in OPEN_CLIP.items():
            name = name.replace(part, other)
        if found := re.match(r"(.+\.attn)\.([qkv])_proj\.(weight|bias)", name):
            halves.setdefault(f"{found[1]}.in_proj_{found[3]}", {})[found[2]] = x
        elif name == "text_projection.weight":
            tensors["text_projection"] = x.T
        else:
            tensors[name] = x
    return tensors | {name: torch.cat([parts[part] for part in "qkv"]) for name, parts in halves.items()}

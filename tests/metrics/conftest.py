"""Tiny random weights of every metric, saved in the published file formats."""

import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    SwinConfig,
)

from golden_noise.shapes.models import build_tokenizer
from golden_noise.shapes.scenes import requests

WIDTH, HEADS, PATCH, SIDE, FEATURES, TOKENS = 32, 2, 7, 28, 24, 16


@pytest.fixture(scope="session")
def randn():
    """Draws tensors of given shapes, the same ones in every run."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape, scale=0.2: torch.randn(*shape, generator=generator) * scale


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Folder of a CLIP in transformers' layout, with the GELU of open_clip's ViT-H."""
    folder, tokenizer = tmp_path_factory.mktemp("clip"), build_tokenizer()
    shared = {"hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": HEADS, "num_hidden_layers": 2}
    shared |= {"hidden_act": "gelu", "projection_dim": FEATURES, "initializer_factor": 3.0}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shared,
    )
    vision = {"image_size": SIDE, "patch_size": PATCH, **shared}
    with isolate_rng():
        torch.manual_seed(0)
        CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=FEATURES)
        ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="session")
def hps_weights(tmp_path_factory, randn):
    """Weights in open_clip's layout, half precision inside `state_dict`, as HPSv2 is published."""
    tensors = {"logit_scale": torch.tensor(3.0), "text_projection": randn(WIDTH, FEATURES)}
    tensors |= {
        "positional_embedding": randn(TOKENS, WIDTH),
        "token_embedding.weight": randn(len(build_tokenizer()), WIDTH),
    }
    tensors |= {"visual.class_embedding": randn(WIDTH), "visual.proj": randn(WIDTH, FEATURES)}
    tensors |= {"visual.positional_embedding": randn((SIDE // PATCH) ** 2 + 1, WIDTH)}
    tensors |= {"visual.conv1.weight": randn(WIDTH, 3, PATCH, PATCH)}
    norms = ["ln_final", "visual.ln_pre", "visual.ln_post"]
    for block in (f"{side}transformer.resblocks.{i}" for side in ("", "visual.") for i in (0, 1)):
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        for name, out, into in (("attn.out_proj", WIDTH, WIDTH), ("mlp.c_fc", 48, WIDTH), ("mlp.c_proj", WIDTH, 48)):
            tensors |= {f"{block}.{name}.weight": randn(out, into), f"{block}.{name}.bias": randn(out)}
        tensors |= {
            f"{block}.attn.in_proj_weight": randn(3 * WIDTH, WIDTH),
            f"{block}.attn.in_proj_bias": randn(3 * WIDTH),
        }
    for norm in norms:
        tensors |= {f"{norm}.weight": 1 + randn(WIDTH), f"{norm}.bias": randn(WIDTH)}
    path = tmp_path_factory.mktemp("hps") / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 1, "state_dict": {name: tensor.half() for name, tensor in tensors.items()}}, path)
    return path


def head(randn, width):
    """Five linear layers as in the LAION aesthetic predictor, narrower."""
    widths, names = (width, 16, 8, 4, 4, 1), (0, 2, 4, 6, 7)
    tensors = {}
    for name, into, out in zip(names, widths[:-1], widths[1:], strict=True):
        tensors |= {f"layers.{name}.weight": randn(out, into, scale=0.5), f"layers.{name}.bias": randn(out)}
    return tensors


@pytest.fixture(scope="session")
def aes_weights(tmp_path_factory, randn):
    path = tmp_path_factory.mktemp("aes") / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(head(randn, FEATURES), path)
    return path


@pytest.fixture(scope="session")
def bert_tokenizer(tmp_path_factory):
    """Folder of BERT's tokenizer with the words of the miniature's captions."""
    folder = tmp_path_factory.mktemp("bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *sorted({word for text in requests() for word in text.split()})]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    BertConfig(vocab_size=len(words)).save_pretrained(folder)  # says whose tokenizer it is
    return folder


@pytest.fixture(scope="session")
def imagereward_weights(tmp_path_factory, randn):
    """A ViT of width 64 and a BERT of width 128 under the names of ImageReward.pt."""
    image, text, tensors = 64, 128, {}

    def linear(name, out, into):
        tensors.update({f"{name}.weight": randn(out, into), f"{name}.bias": randn(out)})

    def norm(name, width):
        tensors.update({f"{name}.weight": 1 + randn(width), f"{name}.bias": randn(width)})

    eyes = "blip.visual_encoder"
    tensors |= {f"{eyes}.cls_token": randn(1, 1, image), f"{eyes}.pos_embed": randn(1, 17, image)}
    tensors |= {f"{eyes}.patch_embed.proj.weight": randn(image, 3, 7, 7), f"{eyes}.patch_embed.proj.bias": randn(image)}
    norm(f"{eyes}.norm", image)
    for block in (f"{eyes}.blocks.{i}" for i in (0, 1)):
        norm(f"{block}.norm1", image)
        norm(f"{block}.norm2", image)
        sizes = (
            ("attn.qkv", 3 * image, image),
            ("attn.proj", image, image),
            ("mlp.fc1", 96, image),
            ("mlp.fc2", image, 96),
        )
        for name, out, into in sizes:
            linear(f"{block}.{name}", out, into)
    words = "blip.text_encoder"
    tensors[f"{words}.embeddings.word_embeddings.weight"] = randn(60, text)
    tensors[f"{words}.embeddings.position_embeddings.weight"] = randn(40, text)
    tensors[f"{words}.embeddings.position_ids"] = torch.arange(40)[None]
    norm(f"{words}.embeddings.LayerNorm", text)
    for layer in (f"{words}.encoder.layer.{i}" for i in (0, 1)):
        for attention, width in (("attention", text), ("crossattention", image)):
            for name, into in (("query", text), ("key", width), ("value", width)):
                linear(f"{layer}.{attention}.self.{name}", text, into)
            linear(f"{layer}.{attention}.output.dense", text, text)
            norm(f"{layer}.{attention}.output.LayerNorm", text)
        linear(f"{layer}.intermediate.dense", 160, text)
        linear(f"{layer}.output.dense", text, 160)
        norm(f"{layer}.output.LayerNorm", text)
    linear("blip.vision_proj", 8, image)
    linear("blip.text_proj", 8, text)
    tensors |= {f"mlp.{name}": tensor for name, tensor in head(randn, text).items()}
    path = tmp_path_factory.mktemp("imagereward") / "ImageReward.pt"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="session")
def mps_weights(tmp_path_factory, clip, randn):
    """The CLIP above under `model.` and two fusion layers under `cross_model.`: 3 heads of width 8."""
    tensors = {f"model.{name}": tensor for name, tensor in CLIPModel.from_pretrained(clip).state_dict().items()}
    tensors["model.text_model.embeddings.position_ids"] = torch.arange(TOKENS)[None]
    dim, heads, head_width, inner = FEATURES, 3, 8, 40
    for i in (0, 1):
        cross, own = f"cross_model.layers.{i}.0.fn", f"cross_model.layers.{i}.1.fn"
        tensors |= {f"{cross}.to_q.weight": randn(heads * head_width, dim), f"{cross}.to_kv.weight": randn(16, dim)}
        tensors |= {f"{cross}.to_out.weight": randn(dim, heads * head_width)}
        tensors |= {f"{cross}.ff.0.weight": randn(2 * inner, dim), f"{cross}.ff.2.weight": randn(dim, inner)}
        tensors |= {f"{own}.fused_attn_ff_proj.weight": randn(heads * head_width + 16 + 2 * inner, dim)}
        tensors |= {
            f"{own}.attn_out.weight": randn(dim, heads * head_width),
            f"{own}.ff_out.1.weight": randn(dim, inner),
        }
        tensors |= {f"{own}.rotary_emb.inv_freq": 10000 ** (-torch.arange(0, 8, 2) / 8)}
        for norm in (cross, own):
            tensors |= {f"{norm}.norm.weight": 1 + randn(dim), f"{norm}.norm.bias": torch.zeros(dim)}
    path = tmp_path_factory.mktemp("mps") / "MPS_overall_checkpoint_diffsynth.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory):
    """Folder of a Mask2Former that is sure to see dogs, wherever its random masks happen to be."""
    folder = tmp_path_factory.mktemp("detector")
    swin = SwinConfig(
        image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_layers=1, decoder_layers=2,
        encoder_feedforward_dim=16, dim_feedforward=16, num_attention_heads=2, num_queries=4, num_labels=80,
    )  # fmt: skip
    with isolate_rng():
        torch.manual_seed(0)
        model = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        model.class_predictor.weight.zero_()
        model.class_predictor.bias.zero_()
        model.class_predictor.bias[16] = 20.0  # the dog's label
    model.save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 106}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def images():
    """Four images (4, 3, 32, 32) of noise in coarse blocks, so that resizing does not level them out."""
    coarse = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return coarse.repeat_interleave(4, -1).repeat_interleave(4, -2)


@pytest.fixture(scope="module")
def tiny(request, clip, bert_tokenizer, detector):
    """The tiny sources for a choice of metric."""

    def sources(choice):
        weights = {"hpsv2": "hps_weights", "hpsv21": "hps_weights"}.get(choice, f"{choice}_weights")
        found = {"model": clip, "processor": clip, "clip": clip, "tokenizer": bert_tokenizer, "detector": detector}
        if choice in ("hpsv2", "hpsv21", "aes", "imagereward", "mps"):
            found["weights"] = request.getfixturevalue(weights)
        if choice.startswith("shapes"):
            found = {}
        return {key: str(value) for key, value in found.items()} | {"side": 64, "sha256": None}

    return sources

"""The pipeline's denoiser as NPNet: it shares the weights, and never touches the sampling."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.npnet import DenoiserNPNet, NPNet
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.pipelines.stable_diffusion import SDPipeline

NOISE = draw_noise([0, 1, 2], (4, 8, 8))
PROMPTS = ["a red circle above a blue square", "two crosses", "a green triangle"]
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1"]


def load(folder, **options):
    return SDXLPipeline.load(str(folder), device="cpu", height=32, width=32, steps=2, guidance=3.0, **options)


@pytest.fixture
def pipeline(tiny_sdxl):
    return load(tiny_sdxl)


@pytest.fixture
def prompt(pipeline):
    return plain(pipeline.encode(PROMPTS))


def plain(prompt):
    """The part that training sees, in tensors that autograd accepts."""
    return PromptEmbedding(prompt.embeds.clone(), pooled=prompt.pooled.clone())


def make(pipeline, rank=4, **options):
    torch.manual_seed(0)
    return DenoiserNPNet(pipeline, rank, LAYERS, **options)


def disturb(npnet):
    """Parameters as after some training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return npnet


def storages(tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@pytest.mark.parametrize("rank", [4, None])
def test_a_new_one_is_exactly_the_identity(pipeline, prompt, rank):
    assert torch.equal(make(pipeline, rank).golden(NOISE, prompt), NOISE)


def test_the_weights_are_the_pipelines_own(pipeline):
    weights = storages(pipeline.denoiser.parameters())
    npnet = make(pipeline)
    adapters = storages(npnet.parameters())
    held = storages(npnet.twin.denoiser.parameters())
    output = storages(npnet.twin.denoiser.conv_out.parameters())
    assert held - adapters - weights <= output
    assert weights - held == storages(pipeline.denoiser.conv_out.parameters())
    assert not adapters & weights
    assert storages(p for p in npnet.twin.denoiser.parameters() if p.requires_grad) == adapters


def test_a_full_copy_shares_nothing_but_the_other_parts(pipeline):
    npnet = make(pipeline, rank=None)
    assert not storages(npnet.parameters()) & storages(pipeline.denoiser.parameters())
    count = sum(parameter.numel() for parameter in pipeline.denoiser.parameters())
    assert sum(parameter.numel() for parameter in npnet.parameters()) == count
    for name in ("vae", "text_encoder", "text_encoder_2", "tokenizer", "scheduler"):
        assert getattr(npnet.twin.pipe, name) is getattr(pipeline.pipe, name)


def state(pipeline):
    """All that building or training a network could change in a pipeline's models."""
    parts = [part for part in pipeline.pipe.components.values() if isinstance(part, torch.nn.Module)]
    modules = [
        (module, module.training, getattr(module, "gradient_checkpointing", None))
        for p in parts
        for module in p.modules()
    ]
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    flags = [(id(t), t.requires_grad, t.data_ptr(), t._version, t.grad is None, t.dtype) for t in tensors]
    return modules, flags, [tensor.detach().clone() for tensor in tensors]


@pytest.mark.parametrize("rank", [4, None])
def test_the_callers_pipeline_is_left_as_it_is(pipeline, prompt, tmp_path, rank):
    """Of whatever mode and trainability it is: built, loaded, trained, averaged, judged and gone again."""
    pipeline.denoiser.down_blocks.train().requires_grad_(False)
    before = state(pipeline)
    npnet = make(pipeline, rank, gradient_checkpointing=True).train()
    npnet.save_pretrained(tmp_path)
    networks = [npnet, copy.deepcopy(npnet), DenoiserNPNet.from_pretrained(tmp_path, pipeline)]
    optimizer = torch.optim.AdamW(npnet.parameters(), lr=0.1)
    npnet.golden(NOISE, prompt).square().mean().backward()
    optimizer.step()
    networks[1].eval().golden(NOISE, prompt)
    networks[2].to("cpu")
    del npnet, networks, optimizer
    after = state(pipeline)
    assert after[:2] == before[:2]
    assert all(torch.equal(*pair) for pair in zip(after[2], before[2], strict=True))


def test_no_parameter_is_the_pipelines_own(pipeline):
    npnet = make(pipeline)
    own, theirs = ([*part.denoiser.parameters()] for part in (npnet.twin, pipeline))
    assert not {id(parameter) for parameter in own} & {id(parameter) for parameter in theirs}
    pipeline.denoiser.requires_grad_(True)
    assert {id(p) for p in own if p.requires_grad} == {id(p) for p in npnet.parameters()}


@pytest.mark.parametrize("move", [lambda x: x.to("cpu"), lambda x: x.double(), lambda x: x.to("meta")])
def test_weights_stay_shared_where_it_moves(pipeline, move):
    """Also where the pipeline was converted in between, and its parameters are no longer the same objects."""
    npnet = make(pipeline)
    pipeline.pipe.to(torch.float64)
    move(npnet)
    shared = [p for n, p in pipeline.denoiser.named_parameters() if not n.startswith("conv_out.")]
    frozen = [p for n, p in npnet.twin.denoiser.named_parameters() if not p.requires_grad and "conv_out" not in n]
    assert len(shared) == len(frozen)
    assert [p.data_ptr() for p in shared] == [p.data_ptr() for p in frozen]
    assert {p.device for p in shared} == {p.device for p in frozen} == {npnet.device}
    assert {p.dtype for p in frozen} == {torch.float64}


def test_a_pipeline_that_moves_on_its_own_leaves_it_usable(pipeline, prompt):
    npnet = disturb(make(pipeline))
    with torch.no_grad():
        golden = npnet.golden(NOISE, prompt)
        pipeline.pipe.to(torch.float16)
        assert torch.equal(npnet.golden(NOISE, prompt), golden)
        torch.testing.assert_close(npnet.to("cpu").golden(NOISE, prompt), golden, atol=0.15, rtol=0)
    assert npnet.twin.dtype == torch.float16


def test_an_offloaded_pipeline_stays_where_its_hooks_put_it(pipeline, prompt):
    from accelerate import cpu_offload, cpu_offload_with_hook

    expected = disturb(make(pipeline)).golden(NOISE, prompt)
    cpu_offload_with_hook(pipeline.denoiser, "cpu")
    npnet = disturb(make(pipeline))
    torch.testing.assert_close(npnet.to("cpu").golden(NOISE, prompt), expected)
    assert storages(pipeline.denoiser.parameters()) - storages(npnet.twin.denoiser.parameters()) == storages(
        pipeline.denoiser.conv_out.parameters()
    )
    cpu_offload(pipeline.denoiser, "cpu")
    with pytest.raises(UserError, match="offload=model"):
        make(pipeline)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_of_half_precision_is_rounded_once(pipeline, prompt, dtype):
    npnet = disturb(make(pipeline))
    noise = NOISE.to(dtype)
    with torch.no_grad():
        assert torch.equal(npnet.golden(noise, prompt), npnet.golden(noise.float(), prompt).to(dtype))


@pytest.mark.parametrize("rank", [4, None])
def test_sampling_is_bit_identical_with_and_without_it(pipeline, rank):
    prompt = pipeline.encode(PROMPTS)
    before = pipeline.sample(prompt, NOISE)
    keys = list(pipeline.denoiser.state_dict())
    npnet = disturb(make(pipeline, rank))
    assert (npnet.golden(NOISE, plain(prompt)) - NOISE).abs().max() > 1e-2
    assert torch.equal(pipeline.sample(prompt, NOISE), before)
    assert list(pipeline.denoiser.state_dict()) == keys


def test_the_move_is_the_adapted_denoiser_at_the_noisiest_timestep(pipeline, prompt):
    npnet = disturb(make(pipeline))
    with torch.no_grad():
        move = npnet.twin.denoise(NOISE, 999, prompt)
        torch.testing.assert_close(npnet(NOISE, prompt), NOISE + move)


@pytest.mark.parametrize("part", ["embeds", "pooled"])
def test_the_prompt_matters_in_both_its_parts(pipeline, prompt, part):
    npnet = disturb(make(pipeline))
    other = PromptEmbedding(
        **{"embeds": prompt.embeds, "pooled": prompt.pooled} | {part: getattr(prompt, part).flip(0)}
    )
    with torch.no_grad():
        moved = (npnet(NOISE, other) - npnet(NOISE, prompt)).abs().amax(dim=(1, 2, 3))
    assert (moved[[0, 2]] > 1e-5).all() and moved[1] < 1e-5


def test_batch_is_its_singles(pipeline, prompt):
    npnet = disturb(make(pipeline))
    with torch.no_grad():
        singles = torch.cat([npnet(NOISE[i : i + 1], prompt[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(npnet(NOISE, prompt), singles, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rank, lr", [(4, 3e-3), (None, 5e-4)])
def test_it_learns_and_every_parameter_takes_part(pipeline, prompt, rank, lr):
    npnet = make(pipeline, rank)
    target = NOISE + 0.3 * draw_noise([7], (4, 8, 8))
    start = {name: parameter.detach().clone() for name, parameter in npnet.named_parameters()}
    optimizer = torch.optim.AdamW(npnet.parameters(), lr=lr, weight_decay=0)
    losses = []
    for _ in range(60):
        loss = (npnet(NOISE, prompt) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]
    still = [name for name, parameter in npnet.named_parameters() if torch.equal(parameter, start[name])]
    assert not still


def test_gradient_checkpointing_gives_the_same_gradients(pipeline, prompt):
    found = []
    for checkpointing in (False, True):
        npnet = disturb(make(pipeline, gradient_checkpointing=checkpointing))
        npnet(NOISE, prompt).square().sum().backward()
        found.append([parameter.grad for parameter in npnet.parameters()])
        assert npnet.twin.denoiser.is_gradient_checkpointing == checkpointing
    assert not pipeline.denoiser.is_gradient_checkpointing
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rank", [4, None])
def test_saved_and_loaded_it_is_the_same(pipeline, prompt, tmp_path, rank):
    npnet = disturb(make(pipeline, rank))
    npnet.save_pretrained(tmp_path)
    again = DenoiserNPNet.from_pretrained(tmp_path, pipeline)
    with torch.no_grad():
        assert torch.equal(again(NOISE, prompt), npnet(NOISE, prompt))
    assert not again.training
    again.save_pretrained(tmp_path / "again")
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("rank", [1, 8])
def test_an_adapter_is_the_product_of_its_two_matrices(pipeline, rank):
    npnet = disturb(make(pipeline, rank))
    layer = npnet.twin.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    own = pipeline.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    x = torch.randn(5, own.in_features)
    expected = own(x) + x @ layer.lora_A["npnet"].weight.T @ layer.lora_B["npnet"].weight.T
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_only_the_adapters_are_saved(pipeline, tmp_path):
    npnet = make(pipeline)
    npnet.save_pretrained(tmp_path)
    size = (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size
    assert size < 4 * sum(parameter.numel() for parameter in npnet.parameters()) + 40_000
    assert all("lora" in name for name in npnet.state_dict())
    config = json.loads((tmp_path / "config.json").read_text())
    assert {key: value for key, value in config.items() if not key.startswith("_")} == {
        "rank": 4,
        "target_modules": LAYERS,
    }
    assert NPNet.load_config(tmp_path)["_class_name"] == "DenoiserNPNet"


def test_two_on_one_pipeline_do_not_meet(pipeline, prompt):
    one, other = disturb(make(pipeline)), make(pipeline, rank=8)
    with torch.no_grad():
        before = one(NOISE, prompt)
        assert torch.equal(other(NOISE, prompt), NOISE)
        disturb(other)
        assert torch.equal(one(NOISE, prompt), before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_has_adapters_in_float32(tiny_sdxl, pipeline, prompt, dtype):
    full, half = disturb(make(pipeline)), disturb(make(load(tiny_sdxl, dtype=dtype)))
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters())
    assert half.twin.dtype == getattr(torch, dtype)
    golden = half.golden(NOISE, prompt)
    assert golden.dtype == torch.float32
    torch.testing.assert_close(golden, full.golden(NOISE, prompt), atol=0.15, rtol=0)
    golden.square().mean().backward()
    assert all(parameter.grad is not None for parameter in half.parameters())


def test_averaged_weights_are_a_copy_of_their_own(pipeline, prompt):
    """What torch's weight averaging does with a module."""
    npnet = disturb(make(pipeline))
    twin = copy.deepcopy(npnet)
    with torch.no_grad():
        assert torch.equal(twin(NOISE, prompt), npnet(NOISE, prompt))
        for parameter in npnet.parameters():
            parameter.zero_()
        assert torch.equal(npnet(NOISE, prompt), NOISE)
        assert not torch.equal(twin(NOISE, prompt), NOISE)
    assert twin.pipeline is pipeline
    frozen = storages(parameter for parameter in npnet.twin.denoiser.parameters() if not parameter.requires_grad)
    assert frozen <= storages(twin.twin.denoiser.parameters())
    assert storages(p for p in twin.twin.denoiser.parameters() if p.requires_grad) == storages(twin.parameters())


@pytest.mark.parametrize("rank", [4, None])
def test_stable_diffusion_has_one_too(tiny_sd, tmp_path, rank):
    """Without a pooled embedding."""
    pipeline = SDPipeline.load(str(tiny_sd), device="cpu", height=32, width=32, steps=2, guidance=3.0)
    prompt = PromptEmbedding(pipeline.encode(PROMPTS).embeds.clone())
    npnet = make(pipeline, rank)
    assert torch.equal(npnet.golden(NOISE, prompt), NOISE)
    disturb(npnet).golden(NOISE, prompt).square().sum().backward()
    assert [name for name, parameter in npnet.named_parameters() if not parameter.grad.any()] == []
    npnet.save_pretrained(tmp_path)
    with torch.no_grad():
        again = DenoiserNPNet.from_pretrained(tmp_path, pipeline)
        assert torch.equal(again(NOISE, prompt), npnet(NOISE, prompt))
    if rank:
        shared = storages(pipeline.denoiser.parameters()) & storages(npnet.twin.denoiser.parameters())
        assert shared == storages(p for n, p in pipeline.denoiser.named_parameters() if not n.startswith("conv_out."))


def test_adapters_do_not_fit_another_kind_of_denoiser(pipeline, tiny_sd, tmp_path):
    make(pipeline).save_pretrained(tmp_path)
    other = SDPipeline.load(str(tiny_sd), device="cpu", height=32, width=32, steps=2, guidance=3.0)
    with pytest.raises(UserError, match="belong to another denoiser") as error:
        DenoiserNPNet.from_pretrained(tmp_path, other)
    assert "\n" not in str(error.value)


def test_noise_and_prompts_must_belong_together(pipeline, prompt):
    npnet = make(pipeline)
    for noise in (NOISE[:2], NOISE[:, :3], NOISE[0]):
        with pytest.raises(UserError, match=r"noise: 3 prompts need shape \(3, 4, height, width\)"):
            npnet(noise, prompt)


def test_parameters_stay_those_of_the_denoiser_when_converted(pipeline, prompt):
    npnet = disturb(make(pipeline)).to(torch.float64)
    assert npnet.dtype == torch.float64
    assert storages(p for p in npnet.twin.denoiser.parameters() if p.requires_grad) == storages(npnet.parameters())
    assert pipeline.dtype == npnet.twin.dtype == torch.float32
    assert (npnet.golden(NOISE, prompt) - NOISE).abs().max() > 1e-2


def test_the_pipeline_follows_to_another_device(pipeline):
    make(pipeline).to("meta")
    for part in (pipeline.denoiser, pipeline.pipe.vae, pipeline.pipe.text_encoder):
        assert {parameter.device.type for parameter in part.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "rank, layers, message",
    [(0, LAYERS, "rank=0"), (4, ["mid_block"], "target_modules")],
)
def test_senseless_settings(pipeline, rank, layers, message):
    with pytest.raises(UserError, match=message) as error:
        DenoiserNPNet(pipeline, rank, layers)
    assert "\n" not in str(error.value)


def test_a_denoiser_with_other_adapters_is_refused(pipeline):
    from peft import LoraConfig

    pipeline.denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(UserError, match="fuse"):
        make(pipeline)


def test_adapters_that_are_no_numbers_are_damaged_and_not_anothers(pipeline, tmp_path):
    make(pipeline).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}  # the file is written over
    name = min(tensors)
    damages = {
        "is not finite": torch.full_like(tensors[name], torch.nan),
        "holds torch.int8": tensors[name].to(torch.int8),
    }
    for words, damaged in damages.items():
        save_file(tensors | {name: damaged}, file, {"format": "pt"})
        with pytest.raises(UserError, match=rf"is damaged: \S+ {words}"):
            DenoiserNPNet.from_pretrained(tmp_path, pipeline)
    for content in ({n: t for n, t in tensors.items() if n != name}, tensors | {"surplus": torch.zeros(1)}):
        save_file(content, file, {"format": "pt"})
        with pytest.raises(UserError, match="another denoiser, or are incomplete"):
            DenoiserNPNet.from_pretrained(tmp_path, pipeline)


def test_adapters_of_another_denoiser_are_refused(pipeline, tmp_path):
    make(pipeline).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    for changes in ({"rank": 8}, {"target_modules": ["to_q"]}, {"target_modules": [*LAYERS, "conv2"]}):
        original = config.read_text()
        config.write_text(json.dumps(json.loads(original) | changes))
        with pytest.raises(UserError, match=r"belong to another denoiser"):
            DenoiserNPNet.from_pretrained(tmp_path, pipeline)
        config.write_text(original)

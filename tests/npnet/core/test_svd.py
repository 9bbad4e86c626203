"""The SVD branch: layout, decomposition, signs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.npnet.core.svd import SVDBranch, decompose, decompose_raw, fix_signs, to_matrix, to_noise

SHAPES = st.tuples(st.sampled_from([2, 4, 6, 16]), st.integers(1, 9), st.integers(1, 9))


def noise(shape, batch=3, seed=0):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def reconstruct(u, s, vh):
    return u * s[:, None, :] @ vh


def branch_with_random_output(shape, **options):
    torch.manual_seed(0)
    branch = SVDBranch(shape, **options)
    torch.nn.init.normal_(branch.mlp4[-1].weight, std=0.1)
    return branch


def test_layout_is_that_of_the_paper():
    x = torch.arange(2 * 4 * 2 * 3).view(2, 4, 2, 3)
    matrix = to_matrix(x)
    assert matrix.shape == (2, 4, 6)
    for sample in range(2):
        top = torch.cat([x[sample, 0], x[sample, 1]], dim=1)
        bottom = torch.cat([x[sample, 2], x[sample, 3]], dim=1)
        assert torch.equal(matrix[sample], torch.cat([top, bottom]))


@given(SHAPES)
@settings(max_examples=30, deadline=None)
def test_decomposition_of_any_shape(shape):
    x = noise(shape)
    assert torch.equal(to_noise(to_matrix(x), shape[0]), x)
    u, s, vh = decompose(x)
    assert u.dtype == s.dtype == vh.dtype == torch.float32
    torch.testing.assert_close(to_noise(reconstruct(u, s, vh), shape[0]), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(s, torch.linalg.svdvals(to_matrix(x)), atol=1e-5, rtol=1e-5)
    identity = torch.eye(s.shape[1]).expand(len(x), -1, -1)
    torch.testing.assert_close(u.mT @ u, identity, atol=1e-4, rtol=0)
    torch.testing.assert_close(vh @ vh.mT, identity, atol=1e-4, rtol=0)


def test_decomposition_is_far_more_exact_than_float32():
    x = noise((4, 16, 16))
    exact = torch.linalg.svd(to_matrix(x.double()))
    ours, float32 = decompose(x), torch.linalg.svd(to_matrix(x))

    def error(u):
        cosine = (u.double() * exact.U).sum(dim=1, keepdim=True)
        return (u * cosine.sign() - exact.U).abs().max()

    assert error(ours[0]) < 1e-7 < error(float32.U)


def test_half_precision_noise_is_decomposed_in_full_precision():
    x = noise((4, 8, 8)).half()
    for ours, full in zip(decompose(x), decompose(x.float()), strict=True):
        assert torch.equal(ours, full)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0])
def test_singular_matrices_stay_finite(scale):
    x = noise((4, 4, 4)).tile(1, 1, 2, 2) * scale
    u, s, vh = decompose(x)
    assert all(part.isfinite().all() for part in (u, s, vh))
    torch.testing.assert_close(to_noise(reconstruct(u, s, vh), 4), x, atol=1e-5, rtol=0)


@given(SHAPES, st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_signs_do_not_matter(shape, seed):
    u, s, vh = decompose(noise(shape))
    flips = torch.randint(0, 2, s.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    flipped = (u * flips[:, None, :], s, vh * flips[:, :, None])
    branch = branch_with_random_output(shape)
    assert torch.equal(branch((u, s, vh)), branch(flipped))


def test_raw_signs_are_those_of_torch():
    x = noise((4, 8, 8))
    branch = branch_with_random_output((4, 8, 8), signs="raw")
    u, s, vh = torch.linalg.svd(to_matrix(x))
    torch.testing.assert_close(branch(branch.decompose(x)), branch((u, s, vh)), atol=1e-4, rtol=0)
    assert not torch.allclose(branch((-u, s, -vh)), branch((u, s, vh)), atol=1e-3)
    assert all(part.dtype == torch.float32 for part in decompose_raw(x.half()))


def test_without_attention_the_rows_are_averaged_last():
    x = noise((4, 8, 6))
    branch = branch_with_random_output((4, 8, 6), attention=False)
    u, s, vh = decompose(x)
    u, vh = fix_signs(u, vh)
    rows = branch.mlp1(u.mT) + branch.mlp2(vh) + branch.mlp3(s)[:, None]
    delta = torch.stack([branch.mlp4(rows[:, i]) for i in range(rows.shape[1])]).mean(dim=0)
    f = to_noise(u @ torch.diag_embed(s + delta) @ vh, 4)
    torch.testing.assert_close(x + branch(branch.decompose(x)), f, atol=1e-5, rtol=1e-5)


def test_fixed_signs_keep_the_matrix():
    x = to_matrix(noise((4, 8, 6)))
    u, s, vh = decompose(noise((4, 8, 6)))
    u, vh = fix_signs(u, vh)
    torch.testing.assert_close(reconstruct(u, s, vh), x, atol=1e-5, rtol=1e-5)


def test_signs_of_mirrored_noise_are_determined():
    half = noise((4, 4, 8))
    u, _, _ = decompose(torch.cat([half, -half.flip(-2)], dim=-2))
    weights = torch.arange(1.0, u.shape[1] + 1)
    assert torch.einsum("bmk,m->bk", u, weights).abs().min() > 1e-3


@pytest.mark.parametrize("axis", [-2, -1])
def test_rounding_does_not_decide_the_signs_of_mirrored_noise(axis):
    """Its singular vectors are antisymmetric, and a plain sum of their components is nothing but rounding."""
    for seed in range(8):
        half = noise((4, 8, 8), seed=seed)
        x = torch.cat([half, -half.flip(axis)], dim=axis)
        u, s, vh = decompose(x if axis == -2 else x.mT)
        determined = s > 1e-3
        rounding = 1e-6 * torch.randn(u.shape, generator=torch.Generator().manual_seed(seed))
        (exact, _), (rounded, _) = fix_signs(u, vh), fix_signs(u + rounding, vh)
        agree = (exact * rounded).sum(dim=1) > 0
        assert u.sum(dim=1).abs()[determined].max() < 1e-4
        assert agree[determined].all()


def test_another_backend_gives_the_same_move():
    """`torch.linalg.svd` in float64 stands for another backend: other signs, other rounding."""
    x = noise((4, 16, 16), batch=32)
    other = tuple(part.float() for part in torch.linalg.svd(to_matrix(x.double()), full_matrices=False))
    branch = branch_with_random_output((4, 16, 16))
    move = branch(decompose(x))
    assert move.std() > 1e-2
    torch.testing.assert_close(branch(other), move, atol=1e-5, rtol=0)


def test_new_branch_moves_nothing():
    assert torch.equal(SVDBranch((4, 8, 8))(decompose(noise((4, 8, 8)))), torch.zeros(3, 4, 8, 8))


def test_branch_is_the_formula():
    """`f(x) = U diag(s + MLP4(...)) Vh`, the published form."""
    x = noise((4, 8, 6))
    branch = branch_with_random_output((4, 8, 6))
    u, s, vh = decompose(x)
    u, vh = fix_signs(u, vh)
    rows = branch.mlp1(u.mT) + branch.mlp2(vh) + branch.mlp3(s)[:, None]
    mean = branch.attention(rows).mean(dim=1)
    f = to_noise(u @ torch.diag_embed(s + branch.mlp4(mean)) @ vh, 4)
    torch.testing.assert_close(x + branch(decompose(x)), f, atol=1e-5, rtol=1e-5)


def test_odd_channels_are_refused():
    with pytest.raises(UserError, match=r"svd: .*\(3, 8, 8\)"):
        SVDBranch((3, 8, 8))

"""Best of N and rescaling."""

import pytest
import torch

from golden_noise.errors import UserError
from golden_noise.noise import draw_noise
from golden_noise.npnet import NPNet
from golden_noise.search.best_of_n import BestOfN
from golden_noise.search.chain import Chain
from golden_noise.search.predicted import Predicted
from golden_noise.search.redenoise import Redenoise
from golden_noise.search.rescale import Rescale

NOISE = draw_noise([0, 1, 2], (4, 8, 8))


class Brightness:
    """Likes bright images, or dark ones; remembers what it saw."""

    range, version = (-1.0, 1.0), "1"

    def __init__(self, sign: float = 1.0):
        self.sign, self.seen = sign, []

    def score(self, prompts, images):
        assert len(prompts) == len(images)
        self.seen.append((list(prompts), self.sign * images.mean(dim=(1, 2, 3))))
        return self.seen[-1][1]


def brightness(pipeline, prompt, noise):
    return pipeline.sample(prompt, noise).mean(dim=(1, 2, 3))


def test_the_best_of_n_has_the_best_score(sdxl, prompt):
    metric = Brightness()
    golden = BestOfN(metric, n=4).search(NOISE, prompt, sdxl)
    scores = torch.stack([scores for _, scores in metric.seen])
    assert scores.shape == (4, 3) and (scores.std(dim=0) > 0).all()
    torch.testing.assert_close(brightness(sdxl, prompt, golden), scores.amax(dim=0))
    assert [texts for texts, _ in metric.seen] == [list(prompt.texts)] * 4


def test_each_sample_is_judged_for_itself(sdxl, prompt):
    for n in (1, 3):
        light, dark = (BestOfN(Brightness(sign), n).search(NOISE, prompt, sdxl) for sign in (1.0, -1.0))
        same = (light == dark).flatten(1).all(dim=1)
        assert same.all() == (n == 1)


def test_one_of_one_is_the_noise_itself(sdxl, prompt):
    assert torch.equal(BestOfN(Brightness(), n=1).search(NOISE, prompt, sdxl), NOISE)


def test_previews_are_what_is_judged(sdxl, prompt):
    metric = Brightness()
    golden = BestOfN(metric, n=4, preview_steps=1).search(NOISE, prompt, sdxl)
    scores = torch.stack([scores for _, scores in metric.seen])
    previews = sdxl.generate(golden, prompt, preview_steps=1)
    torch.testing.assert_close(previews.mean(dim=(1, 2, 3)), scores.amax(dim=0))
    assert (previews - sdxl.generate(golden, prompt)).abs().max() > 1e-4
    with pytest.raises(UserError, match="preview_steps=3 must be between 1 and the number of steps, 2"):
        BestOfN(metric, preview_steps=3).search(NOISE, prompt, sdxl)
    for wrong in (0, "two"):
        with pytest.raises(UserError, match=f"search.preview_steps={wrong} must be null or an integer >= 1"):
            BestOfN(metric, preview_steps=wrong)


def test_it_chooses_among_the_results_of_another_search(sdxl, prompt):
    plain, darker = (BestOfN(Brightness(), n=4, start=start) for start in (None, Rescale(0.5)))
    found = darker.search(NOISE, prompt, sdxl)
    assert found.std() < 0.6 < plain.search(NOISE, prompt, sdxl).std()
    assert torch.equal(BestOfN(Brightness(), n=1, start=Rescale(0.5)).search(NOISE, prompt, sdxl), NOISE / 2)
    with pytest.raises(UserError, match=r"search\.start=7 is no search"):
        BestOfN(Brightness(), start=7)


def test_candidates_are_standard_normal_and_unrelated(sdxl, prompt):
    found = [BestOfN(Brightness(sign), n=3).search(NOISE, prompt, sdxl) for sign in (1.0, -1.0)]
    others = torch.cat([x for golden in found for x in golden.flatten(1).split(1) if x[0, 0] not in NOISE[:, 0, 0, 0]])
    assert len(others) >= 2
    assert (others.std(dim=1) - 1).abs().max() < 0.2
    unique = torch.unique(torch.cat([others, NOISE.flatten(1)]), dim=0)
    related = torch.corrcoef(unique) - torch.eye(len(unique))
    assert related.abs().max() < 0.3  # nearly five standard deviations in 256 dimensions


class Scripted:
    """Gives the scores of a list, batch by batch."""

    range, version = (-1.0, 1.0), "1"

    def __init__(self, *batches):
        self.batches = [torch.tensor(batch) for batch in batches]

    def score(self, prompts, images):
        return self.batches.pop(0)


def test_of_equal_scores_the_first_is_kept(sdxl, prompt):
    assert torch.equal(BestOfN(Scripted(*[[0.5, 0.5, 0.5]] * 4), n=4).search(NOISE, prompt, sdxl), NOISE)
    first, later = (BestOfN(Scripted([0.0] * 3, *rest), n=len(rest) + 1) for rest in ([[1.0] * 3], [[1.0] * 3] * 3))
    found = [search.search(NOISE, prompt, sdxl) for search in (first, later)]
    assert torch.equal(*found) and not torch.equal(found[0], NOISE)


def test_what_has_no_score_is_never_chosen(sdxl, prompt):
    nan = float("nan")
    assert torch.equal(BestOfN(Scripted([0.0] * 3, [nan] * 3), n=2).search(NOISE, prompt, sdxl), NOISE)
    golden = BestOfN(Scripted([nan, nan, 0.0], [0.0, nan, nan]), n=2).search(NOISE, prompt, sdxl)
    assert [torch.equal(x, y) for x, y in zip(golden, NOISE, strict=True)] == [False, True, True]


def test_a_noise_whose_image_overflows_is_never_chosen(sdxl, prompt):
    noise = NOISE.clone()
    noise[1] = float("nan")
    golden = BestOfN(Scripted([0.9] * 3, [0.1] * 3), n=2).search(noise, prompt, sdxl)
    assert [torch.equal(x, y) for x, y in zip(golden, noise, strict=True)] == [True, False, True]
    assert golden.isfinite().all()


def test_no_noise_at_all():
    with pytest.raises(UserError, match=r"search\.n=0"):
        BestOfN(Brightness(), n=0)


@pytest.mark.parametrize("factor", [1.0, 0.74])
def test_rescaling_multiplies(sdxl, prompt, factor):
    assert torch.equal(Rescale(factor).search(NOISE, prompt, sdxl), factor * NOISE)


def test_a_chain_goes_on_from_the_last_result(sdxl, prompt):
    one, other = Redenoise(10), Rescale(0.5)
    golden = Chain({"a": one, "b": other, "c": one}).search(NOISE, prompt, sdxl)
    assert torch.equal(golden, one.search(0.5 * one.search(NOISE, prompt, sdxl), prompt, sdxl))
    with pytest.raises(UserError, match=r"search\.searches is empty"):
        Chain({})


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (
            ((4, 16, 16), (16, 128)),
            r"has latent_shape \(4, 16, 16\), the pipeline of search=predicted needs \(4, 8, 8\)",
        ),
        (((4, 8, 8), (77, 32)), r"has embeds_shape \(77, 32\), the pipeline of search=predicted needs \(16, 128\)"),
    ],
)
def test_a_network_that_does_not_fit_predicts_nothing(sdxl, prompt, tmp_path, shapes, words):
    folder = tmp_path / f"npnet of {shapes}"  # networks are kept by folder, and pytest may use tmp_path again
    NPNet(*shapes).save_pretrained(folder)
    with pytest.raises(UserError, match=words):
        Predicted(str(folder)).search(NOISE, prompt, sdxl)

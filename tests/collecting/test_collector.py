"""The collector: what becomes of a batch of prompts, and whose fault it is when nothing does."""

import pytest
import torch

from golden_noise.collecting.collector import Collector
from golden_noise.collecting.selection import Selection
from golden_noise.errors import UserError
from golden_noise.pairs import Failure, NoisePair
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.prompts import Prompt


class Fragile:
    """Finds no golden noise for prompts that say so, and notes the sizes of its batches."""

    def __init__(self, bug=None):
        self.batches, self.bug = [], bug

    def search(self, noise, prompt, pipeline):
        self.batches.append(len(noise))
        if any("memory" in text for text in prompt.texts) and len(noise) > 1:
            raise torch.OutOfMemoryError("no memory\nfor so many")
        if any("error" in text for text in prompt.texts):
            raise RuntimeError("no noise\nfor this")
        if any("bug" in text for text in prompt.texts):
            raise self.bug
        golden = noise * 1.1
        for i, text in enumerate(prompt.texts):
            if "nan" in text:
                golden[i, 0, 0, 0] = float("nan")
        return golden


@pytest.fixture(scope="module")
def fragile(tiny_sdxl):
    def build(failures_in_a_row=100, bug=None, batch_size=8):
        pipeline = SDXLPipeline.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=2, guidance=1.0)
        return Collector(pipeline, Fragile(bug), {}, None, batch_size, {}, failures_in_a_row)

    return build


def test_a_prompt_that_fails_is_recorded_and_the_others_of_its_batch_are_kept(fragile):
    texts = ["one", "an error", "three", "nan", "five", "six", "not a pair of nan", "eight"]
    (results,) = fragile().results([Prompt(i, text, i) for i, text in enumerate(texts)])
    failures = {result.index: result for result in results if isinstance(result, Failure)}
    assert failures == {
        1: Failure(1, "an error", "RuntimeError: no noise for this"),
        3: Failure(3, "nan", "not finite in float16: golden"),
        6: Failure(6, "not a pair of nan", "not finite in float16: golden"),
    }
    assert [r.prompt.index for r in results if isinstance(r, NoisePair)] == [0, 2, 4, 5, 7]


def test_a_batch_too_large_for_the_memory_is_halved(fragile):
    collector = fragile()
    (results,) = collector.results([Prompt(i, "memory" if i == 5 else "", i) for i in range(8)])
    assert collector.search.batches == [8, 4, 4, 2, 1, 1, 2]
    assert [result.prompt.index for result in results] == list(range(8))


def test_failures_in_a_row_stop_the_collection(fragile):
    good, bad = [Prompt(i, "good", i) for i in range(8)], [Prompt(i, "error", i) for i in range(8)]
    collector = fragile(failures_in_a_row=10)
    for prompts in (good, bad, good, bad):
        assert len(list(collector.results(prompts))) == 1
    with pytest.raises(UserError, match=r"last 10 prompts all failed .* 'error' with RuntimeError: no noise for this$"):
        list(collector.results(bad))


def numbered(*texts):
    return [Prompt(i, text, i) for i, text in enumerate(texts)]


@pytest.mark.parametrize("kind", [TypeError, AttributeError, NameError, ImportError, AssertionError])
@pytest.mark.parametrize("before", [[], ["good"] * 8])
def test_a_mistake_in_a_program_shows_its_own_traceback_at_once(fragile, kind, before):
    collector = fragile(bug=kind("a broken search"))
    with pytest.raises(kind, match="a broken search") as error:
        list(collector.results(numbered(*before, *["one"] * 7, "a bug")))
    assert error.traceback[-1].name == "search"
    assert len(collector.search.batches) == 1 + len(before) // 8


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError, torch.OutOfMemoryError])
def test_so_does_any_error_that_all_of_the_first_batch_meet(fragile, kind):
    collector = fragile(bug=kind("shapes cannot be multiplied"))
    with pytest.raises(kind, match="shapes cannot be multiplied") as error:
        list(collector.results(numbered(*["a bug"] * 24)))
    assert error.traceback[-1].name == "search"
    (results,) = collector.results(numbered(*["a bug"] * 7, "good"))  # where one is spared, the others are to blame
    assert [isinstance(result, Failure) for result in results] == [True] * 7 + [False]


class Doubling:
    def search(self, noise, prompt, pipeline):
        return noise * 2


class Brightness:
    range, version = (0.0, 1.0), "1"

    def score(self, prompts, images):
        assert len(prompts) == len(images) and images.isfinite().all()
        return images.mean(dim=(1, 2, 3))


class Flat(Doubling):
    def search(self, noise, prompt, pipeline):
        return noise.flatten(2)


class Lumped(Brightness):
    def score(self, prompts, images):
        return super().score(prompts, images).mean()


@pytest.mark.parametrize(("search", "metric"), [(Flat(), Brightness()), (Doubling(), Lumped())])
def test_so_does_a_search_or_a_metric_that_gives_another_shape(tiny_sdxl, search, metric):
    pipeline = SDXLPipeline.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=2, guidance=1.0)
    selection = Selection.parse("brightness", 0.0, ["brightness"])
    with pytest.raises(TypeError, match=r"(Flat|Lumped) gave the shape"):
        list(Collector(pipeline, search, {"brightness": metric}, selection, 8, {}, 100).results(numbered("a", "b")))


def test_one_by_one_as_soon_as_failures_in_a_row_are_reached(fragile):
    collector = fragile(failures_in_a_row=3, bug=ValueError("a broken search"), batch_size=1)
    with pytest.raises(ValueError, match="a broken search"):
        list(collector.results(numbered(*["a bug"] * 8)))
    assert len(collector.search.batches) == 3


def test_a_mistake_of_the_users_stays_one_line(fragile):
    collector = fragile(failures_in_a_row=8, bug=UserError("no such prompt"))
    with pytest.raises(UserError, match=r"the last 8 prompts all failed .* with no such prompt$"):
        list(collector.results(numbered(*["a bug"] * 8)))


class Overflowing(SDXLPipeline):
    """Its VAE overflows for some prompts, and for one noise of others; counts the batches that it draws."""

    drawn = 0

    def sample(self, prompt, latents, **options):
        self.drawn += 1
        images = super().sample(prompt, latents, **options).clone()
        for i, text in enumerate(prompt.texts):
            if text == "always" or (text == "golden" and latents[i].std() > 1.5):
                images[i, :, 0, 0] = float("nan")
        return images


def test_an_image_that_is_no_picture_is_a_failure_of_its_prompt_alone(tiny_sdxl):
    pipeline = Overflowing.load(str(tiny_sdxl), device="cpu", height=32, width=32, steps=2, guidance=1.0)
    selection = Selection.parse("brightness", -1.0, ["brightness"])
    collector = Collector(pipeline, Doubling(), {"brightness": Brightness()}, selection, 8, {}, 100)
    (results,) = collector.results(numbered("one", "always", "golden", "four"))
    assert pipeline.drawn == 2  # a standard and a golden batch: nothing is drawn again
    reasons = {result.index: result.reason for result in results if isinstance(result, Failure)}
    assert reasons.keys() == {1, 2}
    assert reasons[1].endswith("standard image, golden image") and reasons[2].endswith(": golden image")
    assert all("check the weights" in reason for reason in reasons.values())  # float32 already
    alone = [next(collector.results([prompt]))[0] for prompt in numbered("one", "always", "golden", "four")]
    for together, single in zip(results, alone, strict=True):
        if isinstance(together, NoisePair):
            assert together.scores["brightness"] == pytest.approx(single.scores["brightness"], abs=1e-5)
            assert torch.equal(together.noise, single.noise)
    (none,) = collector.results(numbered("always", "always"))
    assert all(isinstance(result, Failure) for result in none)


def test_in_half_precision_the_stored_noise_is_the_one_that_was_searched(tiny_sdxl):
    class Seen(Doubling):
        def search(self, noise, prompt, pipeline):
            self.noise = noise.clone()
            return super().search(noise, prompt, pipeline)

    for dtype in ("float16", "float32"):
        options = {"height": 32, "width": 32, "steps": 2, "guidance": 1.0, "dtype": dtype}
        pipeline, search = SDXLPipeline.load(str(tiny_sdxl), device="cpu", **options), Seen()
        (results,) = Collector(pipeline, search, {}, None, 8, {}, 100).results(numbered("one", "two"))
        stored = torch.stack([result.noise for result in results]).float()
        assert torch.equal(stored, search.noise) == (dtype == "float16")
        assert torch.equal(stored, search.noise.half().float())

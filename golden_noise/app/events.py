"""What happens at each click: values of the page in, values of the page out."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from golden_noise.app import recipes
from golden_noise.app.choices import Choice, one_of, whole
from golden_noise.app.searching import searching, settings_of
from golden_noise.app.studio import Picture, Studio, noises_of, rescaling
from golden_noise.app.tables import caption, labels_of, progress_bar, scores_table
from golden_noise.app.visitors import Visitors
from golden_noise.errors import UserError
from golden_noise.generation.job import unknown_words
from golden_noise.generation.names import GOLDEN, SEARCH, STANDARD
from golden_noise.images import save_png

Values = Iterator[tuple[Any, ...]]
FIELDS = ("prompt", "seed", "steps", "guidance", "network", "strength", "factor", "scores")  # of a `Choice`


@contextmanager
def mistakes_shown() -> Iterator[None]:
    """Shows a visitor's mistake as one line on the page; what is none is in the log only."""
    try:
        yield
    except Exception as error:
        if mistake := mistake_of(error):
            raise gr.Error(mistake, print_exception=False) from error
        raise


def for_visitors(function: Callable[..., Values]) -> Callable[..., Values]:
    """Draws for those who wait for it alone, and shows their mistakes."""

    @functools.wraps(function)
    def guarded(events: "Events", request: gr.Request, *values: Any) -> Values:
        with mistakes_shown():
            if not events.visitors.listens(_session(request), request.state.asked):
                raise UserError("Nobody waits for these pictures any more.")
            yield from function(events, request, *values)

    return guarded


def mistake_of(error: BaseException | None) -> str | None:
    """The mistake behind an exception, in a line for a visitor; None if it is none."""
    while error is not None:
        if isinstance(error, UserError):
            return str(error)
        if type(error).__name__ == "OutOfMemoryError":
            return "There is too little memory for this: take fewer seeds."
        error = error.__cause__
    return None


class Events:
    """The clicks on the page of a studio. Each takes the values of FIELDS first."""

    def __init__(self, studio: Studio, visitors: Visitors):
        self.studio, self.visitors = studio, visitors

    @for_visitors
    def draw(self, request: gr.Request, *values: Any) -> Values:
        """Draws standard, golden and perhaps smaller noise of a seed.

        Yields:
            Three pictures, their scores, the command line and the Python of the golden one.
        """
        choice, settings = self._choice(values), self.studio.settings
        noises, labels = noises_of(choice), labels_of(choice)
        search = recipes.rescaled(choice) if SEARCH in noises else []
        (pictures,) = self.studio.draw(choice, noises, rescaling(choice))
        with TemporaryDirectory() as folder:
            shown = {picture.noise: _image(picture, Path(folder), labels) for picture in pictures}
            images = [shown.get(noise, gr.Image(value=None, visible=False)) for noise in (STANDARD, GOLDEN, SEARCH)]
            line = recipes.command(settings, choice, noises, search)
            yield *images, scores_table(pictures, labels), line, recipes.script(settings, choice, GOLDEN)

    @for_visitors
    def draw_grid(self, request: gr.Request, *values: Any) -> Values:
        """Draws several seeds, whose number is the last value.

        Yields:
            The pictures so far, their mean scores, and the command line.
        """
        choice, settings = self._choice(values), self.studio.settings
        count = whole("The number of seeds", values[-1], 2, settings.limits.seeds)
        noises, labels = noises_of(choice), labels_of(choice)
        line = recipes.command(settings, choice, noises, recipes.rescaled(choice) if SEARCH in noises else [], count)
        pictures: list[Picture] = []
        with TemporaryDirectory() as folder:
            for batch in self.studio.draw(choice, noises, rescaling(choice), count):
                pictures = sorted([*pictures, *batch], key=lambda picture: picture.seed)  # noises of a seed together
                files = [(_saved(picture, Path(folder)), caption(picture, labels)) for picture in pictures]
                yield gr.Gallery(files, columns=2 * len(noises)), scores_table(pictures, labels), line

    def begin(self, request: gr.Request) -> tuple[Any, Any]:
        """Lets the visitor stop the search that comes next, and shows how."""
        self.visitors.begin(_session(request))
        return gr.Button(visible=False), gr.Button(visible=True)

    @for_visitors
    def search(self, request: gr.Request, *values: Any) -> Values:
        """Searches for a better noise; the last two values are the search and its length.

        Yields:
            How far it is, the standard picture, the best one, their scores, the command line and the Python.
        """
        *before, name, length = values
        choice, settings = self._choice(before), self.studio.settings
        name = one_of("The search", name, settings.searches)
        config, stop = settings_of(self.studio, choice, name, length), self.visitors.stop_of(_session(request))
        own, labels = recipes.searched(name, config), labels_of(choice, searched="found")
        line = recipes.command(settings, choice, [STANDARD, SEARCH], own)
        yield (
            "",
            None,
            gr.Image(value=None, label="best so far"),
            "",
            line,
            recipes.script(settings, choice, SEARCH, own),
        )
        image = None
        for progress in searching(self.studio, choice, name, config, stop):
            if progress.pictures:
                break
            new = progress.image if progress.image is not image else gr.skip()
            image = progress.image
            yield progress_bar(progress), gr.skip(), new, *_unchanged(3)
        if progress.pictures:
            with TemporaryDirectory() as folder:
                images = [_image(picture, Path(folder), labels) for picture in progress.pictures]
                yield progress_bar(progress), *images, scores_table(progress.pictures, labels), *_unchanged(2)

    def end(self, request: gr.Request) -> tuple[Any, Any]:
        """The search is over."""
        self.visitors.end(_session(request))
        return gr.Button(visible=True), gr.Button(visible=False)

    def stop(self, request: gr.Request) -> None:
        """Ends the visitor's search at its next denoiser call, also if it is still waiting for its turn."""
        self.visitors.stop_of(_session(request)).set()

    def leave(self, request: gr.Request) -> None:
        """The visitor closed the page."""
        self.stop(request)
        self.visitors.end(_session(request))

    def _choice(self, values: Sequence[Any]) -> Choice:
        settings = self.studio.settings
        given = dict(zip(FIELDS, values, strict=False))
        choice = Choice.checked(settings.limits, settings.networks, settings.metrics, given)
        if unknown := unknown_words(choice.prompts(), settings.config.pipeline.get("vocabulary")):
            gr.Warning(f"This model was never trained on: {unknown}.")
        return choice


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _image(picture: Picture, folder: Path, labels: dict[str, str]) -> Any:
    label = labels[picture.noise]
    return gr.Image(_saved(picture, folder), label=label, alt_text=f"from {label} noise", visible=True)


def _saved(picture: Picture, folder: Path) -> str:
    """A file that a browser may keep. Gradio copies it while the folder is there."""
    path = folder / f"seed{picture.seed}_{picture.noise}.png"
    save_png(picture.image, path, picture.texts)
    return str(path)


def _unchanged(count: int) -> list[Any]:
    return [gr.skip() for _ in range(count)]

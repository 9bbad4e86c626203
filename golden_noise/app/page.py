"""The page: what a visitor sees."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from golden_noise.app.choices import one_of
from golden_noise.app.events import Events, mistakes_shown
from golden_noise.app.settings import SEARCHES, Settings
from golden_noise.app.studio import Studio
from golden_noise.app.visitors import Visitors

# One visitor at a time, the others queue. `Choice` looks at the values: Gradio's own checks end in tracebacks.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "preprocess": False}
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # no API is documented or promised
WAITING = 20  # visitors in the queue
KEPT = (600, 3600)  # seconds: how often files are looked at, and how long they are there
STYLE = Path(__file__).with_name("page.css")
SYSTEM, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # nothing is fetched for them
FILLS = {"": "*primary_400", "_hover": "*primary_300"}  # light enough for dark letters
THEME = gr.themes.Default(primary_hue="amber", neutral_hue="stone", font=SYSTEM, font_mono=MONO).set(
    **{
        f"button_primary_background_fill{state}{mode}": shade
        for mode in ("", "_dark")
        for state, shade in FILLS.items()
    },
    button_primary_text_color="*neutral_900",
    button_primary_text_color_dark="*neutral_900",
)
TITLE = "Golden noise"
INTRODUCTION = """# Golden noise
A diffusion model draws better pictures from some noises than from others. A small network moves each noise to a golden
one for the prompt. Compare them."""
EXAMPLES = [
    "a blue triangle left of a red circle",
    "three green squares",
    "a yellow cross and a purple circle",
    "two red triangles",
]  # of the miniature
LENGTHS = {"noise_level_guidance": 20, "redenoise": 1, "zero_order": 4, "best_of_n": 8, "reno": 10}


def build(studio: Studio, visitors: Visitors) -> gr.Blocks:
    """The page of a studio, not yet served."""
    settings, events = studio.settings, Events(studio, visitors)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=KEPT) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                fields = _fields(settings)
            with gr.Column(scale=5, min_width=300), gr.Tabs():
                with gr.Tab("Compare"):
                    _compare(events, fields)
                with gr.Tab("Several seeds"):
                    _grid(events, fields)
                with gr.Tab("Search"):
                    _search(events, fields)
        gr.Markdown(_about(settings), elem_classes="remark")
        page.unload(events.leave)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def _fields(settings: Settings) -> list[Any]:
    """The inputs of a `Choice`, in the order of FIELDS."""
    config, limits, bundled = settings.config, settings.limits, settings.config.pipeline.bundled
    words = ", ".join(config.pipeline.get("vocabulary") or ())
    prompt = gr.Textbox(config.prompt, label="Prompt", max_length=limits.letters, lines=2, elem_id="prompt")
    if bundled:
        examples = gr.Dataset(components=[prompt], samples=[[each] for each in EXAMPLES], label="", type="index")
        examples.click(None, examples, prompt, js=f"index => {json.dumps(EXAMPLES)}[index]", **PRIVATE)
    with gr.Row(elem_classes="seed"):
        seed = gr.Number(config.seed, label="Seed", precision=0, elem_id="seed", min_width=120, scale=3)
        dice = gr.Button("Another", size="md", min_width=90, scale=1)
    dice.click(None, None, seed, js="() => Math.floor(Math.random() * 4294967296)", **PRIVATE)
    names = list(settings.networks)
    network = gr.Dropdown(names, value=names[0], label="Network", elem_id="network", visible=len(names) > 1)
    strength = gr.Slider(
        0, limits.strength, config.strength, step=0.05, label="Strength", elem_id="strength",
        info="How far the network moves the noise: 0 not at all, 1 to golden noise.",
    )  # fmt: skip
    factor = gr.Slider(
        0.1, limits.factor, 1.0, step=0.05, label="Noise × constant", elem_id="factor",
        info="A third picture, of the standard noise times this: what golden noise has to beat. 1: none.",
    )  # fmt: skip
    with gr.Accordion("Sampler and scores", open=False):
        steps = gr.Slider(1, limits.steps, config.pipeline.steps, step=1, label="Steps", elem_id="steps")
        guidance = gr.Slider(
            0, limits.guidance, config.pipeline.guidance, step=0.1, label="Guidance", info="1 or less: none.",
            elem_id="guidance",
        )  # fmt: skip
        metrics = list(settings.metrics)
        scores = gr.CheckboxGroup(metrics, value=metrics, label="Scores", visible=bool(metrics), elem_id="scores")
        if words:
            gr.Markdown(f"This model knows these words alone: {words}.", elem_classes="remark")
    return [prompt, seed, steps, guidance, network, strength, factor, scores]


def _compare(events: Events, fields: list[Any]) -> None:
    button = gr.Button("Draw", variant="primary", elem_id="draw")
    with gr.Row():
        pictures = [_picture(f"{name}_picture", visible=name != "scaled") for name in ("standard", "golden", "scaled")]
    scores = gr.HTML(elem_id="scores_drawn")
    recipe = _recipe("drawn")
    outputs = [*pictures, scores, *recipe]
    for trigger in (button.click, fields[0].submit):
        trigger(events.draw, fields, outputs, show_progress_on=pictures[:2], **MODEL, **PRIVATE)


def _grid(events: Events, fields: list[Any]) -> None:
    most = events.studio.settings.limits.seeds
    count = gr.Slider(2, most, min(4, most), step=1, label="Seeds, from the chosen one on", elem_id="count")
    button = gr.Button("Draw all", variant="primary", elem_id="draw_all")
    gallery = gr.Gallery(
        show_label=False, columns=4, height="auto", object_fit="contain", buttons=["download", "fullscreen"],
        elem_id="gallery", elem_classes="pictures", format="png", interactive=False,
    )  # fmt: skip
    scores = gr.HTML(elem_id="scores_of_all")
    (line,) = _recipe("all", python=False)
    outputs = [gallery, scores, line]
    button.click(events.draw_grid, [*fields, count], outputs, show_progress_on=gallery, **MODEL, **PRIVATE)


def _search(events: Events, fields: list[Any]) -> None:
    searches = list(events.studio.settings.searches)
    with gr.Row():
        name = gr.Dropdown(
            [(each.replace("_", " "), each) for each in searches], value=searches[-1], label="Search", elem_id="search",
            min_width=140,
        )  # fmt: skip
        length = gr.Number(
            LENGTHS[searches[-1]], label=_unit(searches[-1]), precision=0, minimum=1, elem_id="length", min_width=140
        )
    start = gr.Button("Search", variant="primary", elem_id="start")
    stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
    bar = gr.HTML(elem_id="progress")
    with gr.Row():
        pictures = [_picture("unsearched_picture"), _picture("found_picture")]
    scores = gr.HTML(elem_id="scores_found")
    outputs = [bar, *pictures, scores, *_recipe("found")]
    name.change(_length, name, length, preprocess=False, **QUIET, **PRIVATE)
    begun = start.click(events.begin, None, [start, stop], **QUIET, **PRIVATE)
    ran = begun.then(events.search, [*fields, name, length], outputs, show_progress="minimal", show_progress_on=bar,
                     **MODEL, **PRIVATE)  # fmt: skip
    ran.then(events.end, None, [start, stop], **QUIET, **PRIVATE)
    stop.click(events.stop, None, None, **QUIET, **PRIVATE)


def _picture(name: str, visible: bool = True) -> gr.Image:
    label = {"unsearched": "standard", "found": "found"}.get(name.partition("_")[0], name.partition("_")[0])
    return gr.Image(
        label=label, elem_id=name, elem_classes="pictures", interactive=False, format="png", min_width=90,
        buttons=["download", "fullscreen"], visible=visible,
    )  # fmt: skip


def _recipe(name: str, python: bool = True) -> list[gr.Code]:
    """What makes the pictures again, once there are some."""
    with gr.Accordion("Make it again", open=False, elem_id=f"recipe_{name}"):
        parts = [gr.Code(language="shell", label="command line", interactive=False, elem_id=f"command_{name}")]
        if python:
            parts.append(gr.Code(language="python", label="Python", interactive=False, elem_id=f"python_{name}"))
    for part in parts:
        part.wrap_lines, part.show_line_numbers = True, False
    return parts


@mistakes_shown()
def _length(search: Any) -> gr.Number:
    name = one_of("The search", search, LENGTHS)
    return gr.Number(LENGTHS[name], label=_unit(name))


def _unit(search: str) -> str:
    return {"n": "Noises"}.get(SEARCHES[search], SEARCHES[search].capitalize())


def _about(settings: Settings) -> str:
    pipeline = settings.config.pipeline
    return (
        f"Model: {pipeline.model.source}, {pipeline.width} × {pipeline.height} pixels. The button on a picture"
        " downloads it, with all that made it in its text."
    )

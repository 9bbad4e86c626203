"""Draws the example workflows' preview pictures with the miniature: `python -m tests.comfyui.previews`."""

import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from golden_noise.shapes.prompts import draw_prompts
from tests.comfyui.examples import FOLDER, NAMES, example, images, on_miniature
from tests.comfyui.server import Server, lay_out

COUNT, SIDE, LINE = 4, 128, 22
LABELS = {"golden": "golden noise", "plain": "plain noise, the same seeds"}


def main() -> None:
    """Writes NAME.jpg beside every NAME.json."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(lay_out(Path(folder)))
        try:
            server.wait()
            for name in NAMES:
                _draw(server, name).save(FOLDER / f"{name}.jpg", quality=92)
        finally:
            server.stop()


def _draw(server: Server, name: str) -> Image.Image:
    """Rows of images, one for every image that the workflow saves, of the first held-out prompts."""
    info, rows = server.get("/object_info"), {}
    for prompt in draw_prompts("test", COUNT):
        workflow = on_miniature(example(name, info), prompt.text)
        for prefix, file in images(server.run(workflow), workflow, server.base).items():
            rows.setdefault(prefix, []).append(file)
    sheet = Image.new("RGB", (COUNT * SIDE, len(rows) * (SIDE + LINE) + LINE), "white")
    write, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (prefix, files) in enumerate(sorted(rows.items())):
        top = number * (SIDE + LINE)
        write.text((6, top + 2), LABELS[prefix], "black", font)
        for i, file in enumerate(files):
            sheet.paste(
                Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC), (i * SIDE, top + LINE)
            )
    write.text((6, sheet.height - LINE + 2), "drawn by a tiny model of coloured shapes", "black", font)
    return sheet


if __name__ == "__main__":
    main()

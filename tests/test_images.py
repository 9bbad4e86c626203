import json

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from golden_noise.errors import UserError
from golden_noise.images import (
    ENDINGS,
    MARGIN,
    PARAMETERS,
    SOFTWARE,
    TEXT,
    about,
    contact_sheet,
    from_pil,
    read_image,
    save_image,
    save_png,
    side_by_side,
    to_pil,
)


def gradient(count: int, height: int, width: int) -> torch.Tensor:
    values = torch.arange(count * 3 * height * width) % 256
    return values.reshape(count, 3, height, width).float() / 255


def test_eight_bit_images_survive_the_round_trip():
    images = gradient(2, 8, 12)
    pictures = to_pil(images)
    assert [picture.size for picture in pictures] == [(12, 8)] * 2
    assert torch.equal(from_pil(pictures), images)


def test_channels_and_axes_keep_their_places():
    image = torch.zeros(1, 3, 2, 3)
    image[0, 2, 1, 0] = 1  # blue, second row, first column
    assert to_pil(image)[0].getpixel((0, 1)) == (0, 0, 255)


def test_values_are_rounded_and_clamped():
    image = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.5]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert np.asarray(to_pil(image)[0])[..., 0].tolist() == [[0, 0], [1, 255]]


def test_other_modes_become_rgb():
    assert from_pil([Image.new("L", (2, 2), 51)]).unique().tolist() == [pytest.approx(0.2)]
    assert from_pil([Image.new("RGBA", (2, 2), (255, 0, 0, 10))])[0, :, 0, 0].tolist() == [1, 0, 0]


def test_saved_png_is_lossless_carries_its_text_and_leaves_no_partial_file(tmp_path):
    images = gradient(1, 8, 8)
    save_png(to_pil(images)[0], tmp_path / "a.png", {"golden-noise": '{"prompt": "ein Würfel, 立方体"}'})
    saved = Image.open(tmp_path / "a.png")
    assert saved.text == {"golden-noise": '{"prompt": "ein Würfel, 立方体"}'}
    assert about(tmp_path / "a.png") == {"prompt": "ein Würfel, 立方体"}
    assert about(tmp_path / "b.png") == {}
    assert torch.equal(from_pil([saved]), images)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_saving_replaces_the_old_image(tmp_path):
    for level in (10, 200):
        save_png(Image.new("RGB", (2, 2), (level,) * 3), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (200, 200, 200)


def test_side_by_side_keeps_the_order_and_the_size():
    sheet = side_by_side({colour: Image.new("RGB", (512, 256), colour) for colour in ("red", "blue")})
    assert sheet.width == 2 * 512 + MARGIN
    top = sheet.height - 256  # of the images, below their names
    assert [sheet.getpixel((x, top)) for x in (0, 511)] == [(255, 0, 0)] * 2
    assert sheet.getpixel((512 + MARGIN, top)) == (0, 0, 255)
    assert len(sheet.crop((0, 0, 512, top)).getcolors(1000)) > 2  # there is a name


def test_tiny_images_are_enlarged_to_squares():
    image = Image.new("RGB", (32, 16), "red")
    image.putpixel((31, 15), (0, 255, 0))
    sheet = side_by_side({"a": image})
    assert sheet.width == 256
    corner = sheet.crop((256 - 8, sheet.height - 8, 256, sheet.height))
    assert corner.getcolors() == [(64, (0, 255, 0))]


@pytest.mark.parametrize("count", [1, 2, 7, 48])
def test_a_contact_sheet_shows_every_picture(count):
    colours = [(5 * i + 10, 0, 0) for i in range(count)]
    sheet = contact_sheet([("a long caption " * 20, Image.new("RGB", (1024, 512), colour)) for colour in colours])
    seen = {colour for _, colour in sheet.getcolors(100_000)}
    assert {*colours} <= seen
    assert sheet.width < 6000 and sheet.height < 6000


def test_a_photograph_is_read_upright(tmp_path):
    picture = to_pil(gradient(1, 4, 6))[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.rot90(np.asarray(picture), k=-1))


def test_transparent_parts_are_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).tolist() == [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_images_without_transparency_are_read_as_the_published_code_reads_them(tmp_path, mode):
    picture = to_pil(gradient(1, 4, 6))[0].convert(mode)
    picture.save(tmp_path / "a.png")
    expected = Image.open(tmp_path / "a.png").convert("RGB")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(expected))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_becomes_no_picture(value):
    images = torch.rand(2, 3, 8, 8)
    images[1, 2, 3, 4] = value
    with pytest.raises(UserError, match="not finite"):
        to_pil(images)


TEXTS = {
    TEXT: json.dumps({"prompt": 'two\nlines, "quoted" 🦊', "seed": 2**60}),
    PARAMETERS: 'two\nlines, "quoted" 🦊\nSteps: 4',
    SOFTWARE: "golden-noise",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_carries_its_texts(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    save_image(to_pil(gradient(1, 24, 40))[0], path, TEXTS)
    assert about(path) == json.loads(TEXTS[TEXT])
    saved = Image.open(path)
    assert (saved.format.lower(), saved.size) == ({".jpg": "jpeg"}.get(ending, ending[1:]), (40, 24))
    if ending == ".png":
        assert saved.text[PARAMETERS] == TEXTS[PARAMETERS]
    else:
        exif = saved.getexif()
        comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        assert comment[:8] == b"UNICODE\0" and comment[8:].decode("utf-16-be") == TEXTS[PARAMETERS]
        assert exif[ExifTags.Base.Software] == "golden-noise"
    assert read_image(path).size == (40, 24)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_quality_changes_pixels_and_size_of_lossy_files_only(tmp_path):
    image = to_pil(torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(0)))[0]
    for ending in ENDINGS:
        sizes = []
        for quality in (10, None):
            save_image(image, tmp_path / f"a{ending}", {}, quality)
            sizes.append((tmp_path / f"a{ending}").stat().st_size)
        assert (sizes[0] < sizes[1]) == (ending != ".png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_texts_of_other_programs_are_no_metadata(tmp_path):
    exif = Image.Exif()
    for history in ('{"prompt": "theirs"}', "golden-noise: [1]", "golden-noise: {", "é"):
        exif[ExifTags.Base.ImageHistory] = history
        Image.new("RGB", (4, 6)).save(tmp_path / "a.jpg", exif=exif)
        assert about(tmp_path / "a.jpg") == {}
    for damaged in (b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0xx"):
        Image.new("RGB", (4, 6)).save(tmp_path / "a.webp", exif=damaged)
        assert about(tmp_path / "a.webp") == {}

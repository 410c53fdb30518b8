"""Images for analyses: shipped, the user's, noise; and everything that can be wrong with a file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vheatbench.errors import UserError
from vheatbench.studies.images import photographs as images
from vheatbench.studies.images.photographs import PHOTOGRAPHS, Cut, open_images, plain_box, read_photograph

CUT = Cut((48, 64))


def test_shipped_photographs_are_named_in_their_readme():
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    text = (PHOTOGRAPHS / "README.md").read_text()
    assert len(files) >= 8
    assert sum(file.stat().st_size for file in files) < 700_000
    for file in files:
        line = next(line for line in text.splitlines() if f"`{file.name}`" in line)
        assert "CC0" in line or "public domain" in line
        assert max(read_photograph(file).size) <= 640


def test_sequence_is_deterministic_and_views_differ():
    one, same, other = (open_images(None, 25, seed) for seed in (0, 0, 1))
    n = one.sources
    for i in (0, 3, n, n + 3, 2 * n):
        assert np.array_equal(one.image(i, CUT), same.image(i, CUT))
        assert one.image(i, CUT).shape == (48, 64, 3)
        assert one.image(i, CUT).dtype == np.uint8
    assert np.array_equal(one.image(2, CUT), other.image(2, CUT))  # the plain cut has nothing drawn
    assert not np.array_equal(one.image(n, CUT), other.image(n, CUT))
    assert not np.array_equal(one.image(0, CUT), one.image(n, CUT))
    assert not np.array_equal(one.image(n, CUT), one.image(2 * n, CUT))
    assert np.array_equal(one.batch([1, n], CUT), np.stack([one.image(1, CUT), one.image(n, CUT)]))


def test_some_views_are_mirrored_and_all_lie_inside(tmp_path):
    ramp = np.linspace(0, 255, 300)[None, :, None] * np.ones((200, 1, 3))
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "ramp.png")
    shown = open_images(str(tmp_path), 20)
    rising = [shown.image(i, CUT)[0, -1, 0] > shown.image(i, CUT)[0, 0, 0] for i in range(20)]
    assert rising[0]
    assert 4 <= sum(rising) <= 16
    boxes = [images._random_box((300, 200), CUT, (0, i)) for i in range(10, 300)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200
        aspect = (right - left) / (bottom - top)
        assert 3 / 4 - 1e-6 <= aspect / (64 / 48) <= 4 / 3 + 1e-6
    assert len({round(box[0], 3) for box in boxes}) > 200


def test_plain_cut_is_timms(tmp_path):
    """Resize of the shorter side and centre crop, up to the rounding of sizes and of the resampling."""
    from timm.data import create_transform

    ramp = np.linspace(0, 255, 300)[None, :, None] * np.ones((200, 1, 3))
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "ramp.png")
    ours = open_images(str(tmp_path), 1).image(0, Cut((56, 56), "bicubic", 0.875)).astype(float)
    transform = create_transform((3, 56, 56), interpolation="bicubic", crop_pct=0.875, normalize=False)
    theirs = np.asarray(transform(read_photograph(tmp_path / "ramp.png"))).transpose(1, 2, 0)
    assert np.abs(ours - theirs).max() <= 3
    assert plain_box((300, 200), Cut((56, 56), crop_pct=0.875)) == pytest.approx((62.5, 12.5, 237.5, 187.5))
    assert plain_box((300, 200), Cut((56, 56), how="squash")) == (0, 0, 300, 200)


def test_digest_tells_images_apart_and_nothing_else(tmp_path):
    for i, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)).save(tmp_path / name)
    base = open_images(str(tmp_path), 5).digest(CUT)
    assert open_images(str(tmp_path), 50).digest(CUT) == base
    assert open_images(str(tmp_path), 5).digest(Cut((48, 65))) != base
    assert open_images(str(tmp_path), 5).digest(Cut((48, 64), crop_pct=1.0)) != base
    assert open_images(str(tmp_path), 5, seed=1).digest(CUT) != base
    Image.fromarray(np.full((20, 20, 3), 41, np.uint8)).save(tmp_path / "b.png")
    assert open_images(str(tmp_path), 5).digest(CUT) != base
    assert open_images("noise", 5).digest(CUT) != open_images("noise:1/f", 5).digest(CUT)


def test_folder_is_searched_and_its_first_files_are_not_one_class(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(20):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / label / f"{label}{i:02}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    chosen = open_images(str(tmp_path), 10)
    assert chosen.sources == len(chosen.names) == 10
    assert {name[:3] for name in chosen.names} == {"cat", "dog"}
    assert "10 of 40 images" in chosen.words


def test_noise():
    shape = Cut((64, 64))
    white, pink = open_images("noise", 3), open_images("noise:1/f", 3)
    for noise, again in ((white, open_images("noise:white", 3)), (pink, open_images("noise:1/f", 3))):
        assert noise.sources == 3
        assert np.array_equal(noise.image(1, shape), again.image(1, shape))
        assert not np.array_equal(noise.image(0, shape), noise.image(1, shape))
        assert abs(noise.image(0, shape).mean() - 127) < 5
        assert abs(noise.image(0, shape).std() - 51) < 6

    def neighbours(image):
        return np.corrcoef(image[:, 1:, 0].ravel(), image[:, :-1, 0].ravel())[0, 1]

    assert abs(neighbours(white.image(0, shape).astype(float))) < 0.1
    assert neighbours(pink.image(0, shape).astype(float)) > 0.6


def save(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


def test_transparency_is_laid_onto_white(tmp_path):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8, :, 3] = 255
    found = np.asarray(read_photograph(save(tmp_path / "a.png", pixels)))
    assert (found[:8] == 0).all()
    assert (found[8:] == 255).all()


def test_palettes_grey_and_one_bit(tmp_path):
    red = Image.new("RGB", (16, 16), (200, 10, 30))
    assert np.asarray(read_photograph(save(tmp_path / "p.png", red.convert("P", palette=Image.Palette.ADAPTIVE))))[
        3, 3
    ] == pytest.approx([200, 10, 30], abs=3)
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([9, 8, 7, 0, 0, 0])
    see_through = read_photograph(save(tmp_path / "t.png", palette, transparency=0))
    assert (np.asarray(see_through) == 255).all()
    grey = read_photograph(save(tmp_path / "l.png", np.full((16, 16), 77, np.uint8)))
    assert (np.asarray(grey) == 77).all()
    assert grey.mode == "RGB"
    bits = read_photograph(save(tmp_path / "1.png", Image.new("1", (16, 16), 1)))
    assert (np.asarray(bits) == 255).all()


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 128), (65535, 255)])
def test_sixteen_bits(tmp_path, value, expected):
    found = np.asarray(read_photograph(save(tmp_path / "16.png", np.full((16, 16), value, np.uint16))))
    assert (found == expected).all()


def test_real_numbers(tmp_path):
    unit = read_photograph(save(tmp_path / "f.tiff", np.full((16, 16), 0.5, np.float32)))
    assert abs(int(np.asarray(unit)[0, 0, 0]) - 128) <= 1
    bytes_ = read_photograph(save(tmp_path / "g.tiff", np.full((16, 16), 100.0, np.float32)))
    assert (np.asarray(bytes_) == 100).all()
    with pytest.raises(UserError, match=r"n\.tiff"):
        read_photograph(save(tmp_path / "n.tiff", np.full((16, 16), np.nan, np.float32)))


def test_upright_by_exif(tmp_path):
    image = Image.fromarray(np.zeros((16, 32, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter turn
    assert read_photograph(save(tmp_path / "e.jpg", image, exif=exif)).size == (16, 32)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    save(path, noise)
    path.write_bytes(path.read_bytes()[:3000])


FAULTS = {
    "text.png": lambda path: path.write_text("not an image"),
    "empty.jpg": lambda path: path.write_bytes(b""),
    "cut.jpg": truncated,
    "one.png": lambda path: save(path, np.zeros((1, 1, 3), np.uint8)),
    "thin.png": lambda path: save(path, np.zeros((300, 2, 3), np.uint8)),
    "folder.png": lambda path: path.mkdir() or save(path / "x.png", np.zeros((1, 1, 3), np.uint8)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_file_is_named(tmp_path, name):
    FAULTS[name](tmp_path / name)
    with pytest.raises(UserError) as error:
        open_images(str(tmp_path), 5)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("limit", [600, 1500])
def test_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    """Over Pillow's limit, where it only warns, and over twice that, where it raises."""
    save(tmp_path / "bomb.png", np.zeros((50, 50, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=r"bomb\.png: too large"):
        open_images(str(tmp_path), 5)


@pytest.mark.parametrize("source", ["nowhere", "noise:pink", "empty"])
def test_sources_that_are_not(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=source):
        open_images(source, 5)


def test_one_file_is_a_source(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((20, 20, 3), np.uint8))
    one = open_images(str(path), 4)
    assert one.sources == 1
    assert one.names == ["a.png"]


def test_unknown_interpolation():
    with pytest.raises(UserError, match="interpolation"):
        Cut((8, 8), "spline")

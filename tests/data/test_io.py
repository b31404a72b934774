import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data.io import (
    SIGNATURE,
    find_images,
    orientation,
    read_image,
    read_label,
    read_mask,
    read_voc_label,
    voc_palette,
    write_array,
    write_grey,
    write_label,
)
from utils.errors import UserError


@pytest.fixture
def photo(tmp_path) -> np.ndarray:
    """A JPEG file photo.jpg of 60x40 pixels, red on the left and blue on the right."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 200
    pixels[::7, ::5] += 40
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95)
    return pixels


def test_image_is_rgb_and_equal_to_pillow(tmp_path, photo):
    image = read_image(tmp_path / "photo.jpg")
    assert image.dtype == np.uint8 and image.shape == (40, 60, 3)
    assert image[20, 5, 0] > 150 > image[20, 5, 2] and image[20, 55, 2] > 150 > image[20, 55, 0]
    assert np.array_equal(image, np.asarray(Image.open(tmp_path / "photo.jpg")))


def test_grey_image_gets_three_channels(tmp_path):
    Image.fromarray(np.full((4, 5), 90, np.uint8)).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.full((4, 5, 3), 90))


def test_exif_does_not_turn_the_image_away_from_its_mask(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to display"
    Image.fromarray(photo).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    stored = read_image(tmp_path / "turned.jpg")
    assert np.array_equal(stored, read_image(tmp_path / "photo.jpg"))
    assert np.array_equal(read_image(tmp_path / "turned.jpg", as_shown=True), np.rot90(stored, -1))
    assert orientation(tmp_path / "turned.jpg") == 6 and orientation(tmp_path / "photo.jpg") == 1


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, -50])
def test_a_damaged_image_is_an_error(tmp_path, photo, kept):
    encoded = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(encoded[: int(kept * len(encoded)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match=r"cut\.jpg: not a readable image"):
        read_image(tmp_path / "cut.jpg")


def test_missing_files_are_named(tmp_path):
    for read in (read_image, read_label):
        with pytest.raises(UserError, match=r"none\.png: .*no such file|none\.png: .*No such file"):
            read(tmp_path / "none.png")


def test_label_is_written_and_read_back_with_all_values(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_label(tmp_path / "new" / "all.png", values[:, ::-1])
    assert np.array_equal(read_label(tmp_path / "new" / "all.png"), values[:, ::-1])
    with Image.open(tmp_path / "new" / "all.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image.convert("RGB")), voc_palette()[values[:, ::-1]])
    assert os.listdir(tmp_path / "new") == ["all.png"]  # no temporary file stays


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_label(path, np.zeros((2, 2), np.uint8))
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_label(path, np.ones((2, 2), np.uint8))
    assert os.listdir(tmp_path) == ["a.png"] and read_label(path).max() == 0


@pytest.mark.parametrize("values", [np.zeros((2, 2), np.int64), np.zeros((2, 2), bool), np.zeros((2, 2, 3), np.uint8)])
def test_only_uint8_maps_are_written(tmp_path, values):
    with pytest.raises(AssertionError):
        write_label(tmp_path / "a.png", values)


def test_grey_and_one_bit_labels_keep_their_values(tmp_path):
    grey = np.array([[0, 7, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_label(tmp_path / "grey.png"), grey)
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert read_label(tmp_path / "bits.png").tolist() == [[1, 0]]
    assert read_label(tmp_path / "bits.png").dtype == np.uint8


def test_labels_of_another_kind_are_errors(tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.array([[256, 1]], np.uint16))
    with pytest.raises(UserError, match=r"wide\.png: .*expected at most 8 bits"):
        read_mask(tmp_path / "wide.png")
    cv2.imwrite(str(tmp_path / "color.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match=r"color\.png: 3 channels; expected one value per pixel"):
        read_label(tmp_path / "color.png")


def test_labels_of_sixteen_bits_come_back(tmp_path):
    values = np.array([[0, 255], [256, 65535]], np.uint16)
    write_label(tmp_path / "wide.png", values)
    found = read_label(tmp_path / "wide.png")
    assert found.dtype == np.uint16 and np.array_equal(found, values)


def png(path, values: np.ndarray, depth: int, colour: int = 0) -> None:
    """A PNG of numbers [H, W] stored with `depth` bits each."""
    shifts = np.arange(depth)[::-1]
    bits = (values[..., None].astype(int) >> shifts & 1).reshape(len(values), -1).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(SIGNATURE + b"".join(chunk(kind, body) for kind, body in chunks))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_labels_of_every_depth_keep_their_values(tmp_path, depth):
    values = np.arange(12).reshape(2, 6) % 2**depth
    png(tmp_path / "a.png", values, depth)
    assert np.array_equal(read_label(tmp_path / "a.png"), values)


def test_deep_pictures_are_refused_by_name(tmp_path):
    """12 camera bits in a 16-bit file would be nearly black if read as 8 bits."""
    deep = np.full((4, 5), 220 * 16, np.uint16)
    for name in ("deep.png", "deep.tif"):
        cv2.imwrite(str(tmp_path / name), deep)
        with pytest.raises(UserError, match=rf"{name}: 16 bits per channel; expected an image of 8"):
            read_image(tmp_path / name)
    cv2.imwrite(str(tmp_path / "plain.tif"), (deep // 16).astype(np.uint8))
    assert (read_image(tmp_path / "plain.tif") == 220).all()
    png(tmp_path / "a.png", np.full((2, 3), 257), 16)
    with pytest.raises(UserError, match=r"a\.png: 16 bits per channel; expected at most 8"):
        read_mask(tmp_path / "a.png")


def test_any_changed_byte_of_a_png_is_found(tmp_path):
    write_label(tmp_path / "whole.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    whole = bytearray((tmp_path / "whole.png").read_bytes())
    for place in range(len(whole)):
        for read in (read_label, read_image):
            damaged = whole.copy()
            damaged[place] ^= 1 << place % 8
            (tmp_path / "a.png").write_bytes(damaged)
            with pytest.raises(UserError, match=r"a\.png: not a readable"):
                read(tmp_path / "a.png")


def test_aerial_tiles_are_read_and_larger_claims_refused(tmp_path, monkeypatch):
    """Pillow itself rejects images of 180 million pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    write_label(tmp_path / "tile.png", np.full((5, 6), 15, np.uint8))
    assert read_label(tmp_path / "tile.png").sum() == 15 * 30
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    for read in (read_label, read_image):
        with pytest.raises(UserError, match=r"bomb\.png: 60000x60000 pixels; expected at most 2\^30 in all"):
            read(tmp_path / "bomb.png")


def test_voc_colours_at_other_numbers_are_refused(tmp_path):
    """PNG optimisers keep only the used colours, in ascending order: person (15) becomes 1."""
    for values, palette, wrong in (
        ([[0, 1]], voc_palette()[[0, 15]], "its value 1 has PASCAL VOC's colour of class 15"),
        ([[1, 0, 2]], voc_palette()[[8, 15, 0]], "its value 0 has PASCAL VOC's colour of class 8"),
        ([[0, 1, 1]], voc_palette()[[0, 1]], None),  # shortened, not renumbered
        ([[0, 1]], np.array([[0, 0, 0], [255, 0, 0]]), None),  # custom colours
        ([[0, 1]], np.array([[0, 0, 0], [128, 128, 128], [60, 40, 222]]), None),  # and others of VOC's that occur here
        ([[0, 1]], np.zeros((2, 3)), None),  # no colours at all
    ):
        image = Image.fromarray(np.array(values, np.uint8))
        image.putpalette(palette.astype(np.uint8).tobytes())
        image.save(tmp_path / "a.png")
        assert read_label(tmp_path / "a.png").tolist() == values
        if wrong:
            with pytest.raises(UserError, match=f"a\\.png: {wrong}"):
                read_voc_label(tmp_path / "a.png")
        else:
            assert read_voc_label(tmp_path / "a.png").tolist() == values


def test_a_damaged_label_is_an_error(tmp_path):
    write_label(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8))
    whole = (tmp_path / "whole.png").read_bytes()
    for name, content in {"text.png": b"no image", "cut.png": whole[: len(whole) - 100], "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not a readable PNG"):
            read_label(tmp_path / name)


def test_palette_is_that_of_voc():
    palette = voc_palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    assert all(tuple(palette[value]) == color for value, color in known.items())
    assert tuple(palette[20]) == (0, 64, 128) and tuple(palette[255]) == (224, 224, 192)  # tvmonitor, void
    assert len(np.unique(palette, axis=0)) == 256


def test_array_is_written_and_read_back(tmp_path):
    values = np.linspace(0, 1, 7, dtype=np.float32)
    write_array(tmp_path / "new" / "a.npy", values)
    assert np.array_equal(np.load(tmp_path / "new" / "a.npy"), values)


def save(path, values, mode: str | None = None) -> None:
    image = Image.fromarray(np.array(values, np.uint8))
    if mode == "P":
        write_label(path, np.array(values, np.uint8))
    else:
        (image.convert(mode) if mode else image).save(path)


@pytest.mark.parametrize(
    "values, mode, expected, official",
    [
        ([[0, 1]], "P", [[0, 1]], [[0, 0]]),
        ([[0, 255]], "P", [[0, 1]], [[0, 1]]),
        ([[0, 1]], None, [[0, 1]], [[0, 0]]),
        ([[0, 255]], None, [[0, 1]], [[0, 1]]),
        ([[0, 255]], "1", [[0, 1]], [[0, 1]]),  # stored as one bit, read as true
        ([[0, 127, 128, 254, 255]], None, [[0, 0, 1, 1, 1]], [[0, 0, 0, 0, 1]]),
        ([[3, 254]], None, [[0, 1]], [[0, 0]]),
        ([[0, 255]], "RGB", [[0, 1]], [[0, 1]]),
        ([[0, 200]], "LA", [[0, 1]], [[0, 0]]),
        ([[0, 255]], "RGBA", [[0, 1]], [[0, 1]]),
    ],
)
def test_saliency_of_any_values(tmp_path, values, mode, expected, official):
    save(tmp_path / "a.png", values, mode)
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == np.uint8 and mask.tolist() == expected
    assert read_mask(tmp_path / "a.png", "official").tolist() == official


@pytest.mark.parametrize(
    "values, mode, message",
    [
        ([[0, 15]], "P", "palette values 0, 15; expected 0 and 1 or 0 and 255"),
        ([[0, 1, 255]], "P", "palette values 0, 1, 255; expected"),
        ([[0, 0]], "P", "no pixel is salient"),
        ([[0, 0]], None, "no pixel is salient"),
        ([[1, 1]], None, "every pixel is salient"),
        ([[255, 255]], None, "every pixel is salient"),
        ([[0, 1, 100]], None, r"no pixel is salient; expected an object \(1, 255 or grey from 128\)"),
        ([[[9, 8, 7], [0, 0, 0]]], None, "a colour picture"),
    ],
)
def test_saliency_that_is_none_is_one_line(tmp_path, values, mode, message):
    save(tmp_path / "a.png", values, mode)
    with pytest.raises(UserError, match=rf"a\.png: {message}") as error:
        read_mask(tmp_path / "a.png")
    assert "\n" not in str(error.value)
    assert read_mask(tmp_path / "a.png", "official").max() == (np.max(values) == 255)  # refuses no values


@pytest.mark.parametrize("channels", [3, 4])
def test_official_rule_takes_the_first_channel_of_a_colour_picture(tmp_path, channels):
    values = np.zeros((1, 4, channels), np.uint8)
    values[0, :, 0], values[0, :, 1] = [255, 0, 254, 255], [0, 255, 255, 255]
    save(tmp_path / "a.png", values)
    assert read_mask(tmp_path / "a.png", "official").tolist() == [[1, 0, 0, 1]]
    with pytest.raises(UserError, match="a colour picture"):
        read_mask(tmp_path / "a.png")


def test_grey_map_is_written_and_read_back(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_grey(tmp_path / "new" / "all.png", values.T)
    with Image.open(tmp_path / "new" / "all.png") as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), values.T)
    assert os.listdir(tmp_path / "new") == ["all.png"]


def test_images_are_found_in_folders_and_by_name(tmp_path, caplog):
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "tile.TIF", "phone.heic", "turn.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path / "sub" / "c.webp", tmp_path])
    assert [path.name for path in found] == ["c.webp", "a.PNG", "b.jpg", "tile.TIF"]
    assert "2 images left out, such as 'phone.heic'; supported are .jpg" in caplog.text  # notes.txt is none
    (tmp_path / "sub" / "a.jpg").touch()
    for paths, message in (
        ([tmp_path, tmp_path / "sub"], "two images are called 'a'"),
        ([tmp_path / "none"], "none: no such image or folder"),
    ):
        with pytest.raises(UserError, match=message):
            find_images(paths)

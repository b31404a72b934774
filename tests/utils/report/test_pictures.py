"""Pixels of the pictures: colours where the classes are, and nowhere else."""

import base64
import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from utils.report import pictures


@pytest.fixture
def palette() -> np.ndarray:
    colors = np.zeros((256, 3), np.uint8)
    colors[1], colors[2], colors[255] = (255, 0, 0), (0, 0, 255), (9, 9, 9)
    return colors


def test_cluster_colors_differ():
    colors = pictures.cluster_colors(40).astype(int)  # as many as COCO-20i has clusters
    assert colors.shape == (40, 3)
    assert min(np.abs(a - b).max() for a, b in combinations(colors, 2)) >= 20
    assert min(np.abs(a - b).max() for a, b in combinations(colors[:10], 2)) >= 60
    np.testing.assert_array_equal(colors[:10], pictures.cluster_colors(10))


def test_overlay_colours_its_classes_only(palette):
    image = np.full((60, 80, 3), 128, np.uint8)
    label = np.zeros((60, 80), np.uint8)
    label[10:50, 10:30], label[10:50, 50:70], label[0:5] = 1, 2, 255
    shown = pictures.overlay(image, label, palette, {}, side=80)[10:70].astype(
        int
    )  # 80 x 80 with white above and below
    red, blue, ground, ignored = shown[30, 20], shown[30, 60], shown[30, 40], shown[2, 40]
    assert red[0] > red[1] + 120 and red[1] == red[2]
    assert blue[2] > blue[0] + 120
    assert np.ptp(ground) <= 1 and ground.mean() == pytest.approx(0.8 * 128 + 0.2 * 235, abs=2)
    assert ignored.min() > 200


def test_overlay_names_large_regions(palette):
    image = np.full((240, 240, 3), 128, np.uint8)
    label = np.zeros((240, 240), np.uint8)
    label[20:220, 20:220] = 1
    without, named = (pictures.overlay(image, label, palette, names, {1}) for names in ({}, {1: "cat"}))
    changed = np.argwhere((without != named).any(-1))
    assert len(changed) > 100 and np.abs(changed.mean(0) - 120).max() < 12  # a tag around the middle of the region
    label[label == 1] = 0
    label[:6, :6] = 1  # too small for a name
    without, named = (pictures.overlay(image, label, palette, names, {1}) for names in ({}, {1: "cat"}))
    np.testing.assert_array_equal(without, named)


def test_label_resizing_invents_no_class():
    label = np.zeros((20, 20), np.uint8)
    label[:, 10:] = 7
    for size in ((33, 47), (9, 9)):
        resized = pictures.resize_label(label, size)
        assert resized.shape == size and set(np.unique(resized)) == {0, 7}
        assert np.mean(resized == 7) == pytest.approx(0.5, abs=0.06)


def test_spotlight_keeps_the_inside_and_darkens_the_rest():
    image = np.full((40, 40, 3), (200, 100, 50), np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    shown = pictures.spotlight(image, mask, side=40)
    np.testing.assert_array_equal(shown[20, 20], (200, 100, 50))
    assert shown[2, 2].max() < 60 and np.ptp(shown[2, 2].astype(int)) == 0
    assert pictures.spotlight(image, np.zeros_like(mask), side=40).max() < 60  # nothing salient: night everywhere


def test_crop_is_centred_on_the_object():
    image = np.zeros((100, 60, 3), np.uint8)
    mask = np.zeros((100, 60), np.uint8)
    mask[70:90, 30:50] = 1
    image[70:90, 30:50] = (10, 200, 10)
    crop = pictures.crop_object(image, mask, side=50)
    green = np.argwhere((crop[..., 1] > 150) & (crop[..., 0] < 60))
    assert np.abs(green.mean(0) - 24.5).max() < 1.5
    assert np.ptp(green, axis=0).min() > 35  # it fills the crop
    assert pictures.crop_object(image, np.zeros_like(mask), side=50).min() == 255


def test_pictures_keep_their_proportions():
    assert pictures.fit_size((50, 100, 3), 240) == (120, 240)
    shown = pictures.plain(np.zeros((50, 100, 3), np.uint8), side=240)
    dark = np.argwhere(shown[..., 0] < 128)
    assert shown.shape == (240, 240, 3) and dark.min(0).tolist() == [60, 0] and dark.max(0).tolist() == [179, 239]


def test_sheet_places_every_cell():
    cells = [[np.full((60, 60, 3), 10 * (3 * column + row), np.uint8) for row in range(3)] for column in range(2)]
    shown = pictures.sheet(cells, ["image", "truth", "EUMS"], "novel:", [("cat", np.array([255, 0, 0]))])
    left = shown.shape[1] - 2 * 68
    for column in range(2):
        for row in range(3):
            middle = shown[row * 68 + 30, left + column * 68 + 30]
            assert middle.tolist() == [10 * (3 * column + row)] * 3
    assert (shown[3 * 68 :] == (255, 0, 0)).all(-1).sum() > 200  # the legend


def test_data_uri_is_the_picture():
    image = np.full((16, 24, 3), (200, 30, 60), np.uint8)
    head, body = pictures.data_uri(image).split(",")
    assert head == "data:image/jpeg;base64"
    back = np.array(Image.open(io.BytesIO(base64.b64decode(body))))
    assert back.shape == image.shape and np.abs(back.astype(int) - image).max() < 6

"""Segmentation of single images with a saved model."""

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation
import finetune_novel
import predict
from data.io import read_image, read_label
from data.video import read_frames, write_video
from tests.conftest import balance
from tests.networks import discovery_network
from utils import checkpoint
from utils.run import guarded


@pytest.fixture
def evaluated(tiny, voc, tmp_path):
    """Evaluation folder of a network whose outputs all occur: predictions/ and model.pth."""
    torch.manual_seed(3)
    model = balance(discovery_network(6, atrous_rates=(1, 2, 3)), voc)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    argv = [str(tiny), f"checkpoint={tmp_path / 'bare.pth'}", "model.backbone=resnet18", "save_predictions=true"]
    assert guarded(evaluation.main, argv) == 0
    return tmp_path / "out" / "two" / "eval_basic"


def test_trained_model_knows_its_classes(tiny, pseudo, tmp_path):
    assert guarded(finetune_novel.main, [str(tiny), "method=basic", f"pseudo_dir={pseudo}"]) == 0
    best = checkpoint.load(tmp_path / "out" / "two" / "basic" / "best.pth")
    names = {0: "background", 1: "disc", 2: "square", 3: "bar", 4: "dot"}
    numbers = [0, 1, 2, *(3 + novel for _, novel in best["metrics"]["match"])]
    assert [tuple(pair) for pair in best["classes"]] == [(number, names[number]) for number in numbers]


def test_single_images_get_the_labels_of_the_evaluation(evaluated, voc, tmp_path, capsys):
    images, seen = sorted((voc / "images").glob("v0*.jpg")), set()
    assert guarded(predict.main, [str(evaluated / "model.pth"), *map(str, images), "--to", str(tmp_path / "made")]) == 0
    for path in images:
        label = read_label(tmp_path / "made" / f"{path.stem}.png")
        assert np.array_equal(label, read_label(evaluated / "predictions" / f"{path.stem}.png"))
        assert read_image(tmp_path / "made" / f"{path.stem}_overlay.jpg").ndim == 3
        seen |= set(np.unique(label).tolist())
    assert len(seen) > 2
    shown = capsys.readouterr().out
    assert all(name in shown for number, name in [(3, "bar"), (4, "dot")] if number in seen)


def test_a_folder_of_images_of_any_size(evaluated, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (50, 20), (200, 40, 40)).save(folder / "wide.png")
    Image.new("RGB", (9, 33)).save(folder / "tall.JPG", "JPEG")
    (folder / "notes.txt").write_text("no image")
    assert guarded(predict.main, [str(evaluated / "model.pth"), str(folder), "--to", str(tmp_path / "made")]) == 0
    assert sorted(path.stem for path in (tmp_path / "made").glob("*.png")) == ["tall", "wide"]
    assert read_label(tmp_path / "made" / "wide.png").shape == (20, 50)


def test_a_file_without_classes_is_refused(evaluated, voc, tmp_path, capsys):
    assert guarded(predict.main, [str(tmp_path / "bare.pth"), str(voc / "images" / "v000.jpg")]) == 2
    assert "the classes of its outputs; python eval.py CONFIG checkpoint=" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["missing", "twice", "none"])
def test_wrong_images(case, evaluated, voc, tmp_path, capsys):
    image = next((voc / "images").glob("v*.jpg"))
    (tmp_path / "empty").mkdir()
    paths = {"missing": [tmp_path / "no.jpg"], "twice": [image, image], "none": [tmp_path / "empty"]}[case]
    assert guarded(predict.main, [str(evaluated / "model.pth"), *map(str, paths), "--to", str(tmp_path / "made")]) == 2
    expected = {"missing": "no such image", "twice": "two images are called", "none": "no image in these folders"}[case]
    assert expected in capsys.readouterr().err and not (tmp_path / "made").exists()


def snapshot(folder) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("case", ["itself", "overlay", "link", "beside", "mask"])
def test_no_picture_of_others_is_replaced(case, evaluated, voc, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (50, 20), (200, 40, 40)).save(folder / "wide.png")
    given, to = folder, folder
    if case == "overlay":
        (folder / "wide.png").rename(folder / "wide.bmp")
        Image.new("RGB", (50, 20)).save(folder / "wide_overlay.jpg")
    elif case == "link":
        (tmp_path / "other").symlink_to(folder)
        to = tmp_path / "other"
    elif case == "beside":  # a picture that is not among the inputs
        given = tmp_path / "wide.jpg"
        Image.new("RGB", (50, 20)).save(given)
    elif case == "mask":  # drawn by hand, and of the same format as ours
        given, to = voc / "images" / "v000.jpg", voc / "SegmentationClassAug"
    before = snapshot(to)
    assert guarded(predict.main, [str(evaluated / "model.pth"), str(given), "--to", str(to)]) == 2
    error = capsys.readouterr().err
    assert f"--to {to}: " in error and error.count("\n") == 1
    assert ("is an input" in error) == (case in ("itself", "overlay", "link"))
    assert snapshot(to) == before


def test_own_pictures_are_replaced(evaluated, voc, tmp_path):
    argv = [str(evaluated / "model.pth"), str(voc / "images" / "v000.jpg"), "--to", str(tmp_path / "made")]
    assert guarded(predict.main, argv) == 0
    before = snapshot(tmp_path / "made")
    assert guarded(predict.main, argv) == 0 and snapshot(tmp_path / "made") == before


def test_a_file_as_the_folder(evaluated, voc, tmp_path, capsys):
    (tmp_path / "made").write_text("text")
    for to in ("made", "made/deeper"):
        argv = [str(evaluated / "model.pth"), str(voc / "images" / "v000.jpg"), "--to", str(tmp_path / to)]
        assert guarded(predict.main, argv) == 2
        assert f"{tmp_path / 'made'} is a file; give a folder" in capsys.readouterr().err
    assert (tmp_path / "made").read_text() == "text"


def test_a_video_gets_an_overlay_and_areas_of_every_frame(evaluated, voc, tmp_path):
    images = [read_image(path) for path in sorted((voc / "images").glob("v0*.jpg"))[:3]]
    write_video(tmp_path / "clip.mp4", iter(images), 4.0)
    assert guarded(predict.main, [str(evaluated / "model.pth"), str(tmp_path / "clip.mp4"), "--to", str(tmp_path)]) == 0
    assert len(list(read_frames(tmp_path / "clip_overlay.mp4"))) == 3
    [found] = json.loads((tmp_path / "predictions.json").read_text())
    assert found["frames_per_second"] == 4 and [sum(frame.values()) for frame in found["frames"]] == [40 * 40] * 3


@pytest.mark.parametrize("there", ["another film", "the film itself", "its own, made before"])
def test_no_film_of_others_is_replaced(evaluated, tmp_path, capsys, there):
    film, shown = tmp_path / "clip.mp4", tmp_path / "clip_overlay.mp4"
    write_video(film, iter([np.full((40, 40, 3), 99, np.uint8)] * 2), 4.0)
    given = [str(evaluated / "model.pth"), str(film), "--to", str(tmp_path)]
    if there == "its own, made before":
        assert [guarded(predict.main, given) for _ in range(2)] == [0, 0]
        return
    film.rename(shown) if there == "the film itself" else shown.write_bytes(b"another")
    if there == "the film itself":
        film.symlink_to(shown)
    before = shown.read_bytes()
    assert guarded(predict.main, given) == 2 and shown.read_bytes() == before
    assert "clip_overlay.mp4 is" in capsys.readouterr().err


def test_a_film_cut_short_is_told(evaluated, tmp_path, caplog):
    film = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 4, (64, 48))
    for frame in np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), dtype=np.uint8):
        writer.write(frame)
    writer.release()
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    assert guarded(predict.main, [str(evaluated / "model.pth"), str(film), "--to", str(tmp_path / "made")]) == 0
    assert "of some 8 frames could be read; cut short or damaged?" in caplog.text


def test_predictions_of_others_are_kept(evaluated, voc, tmp_path, capsys):
    (tmp_path / "predictions.json").write_text('{"mine": 1}')
    photo = next((voc / "images").glob("v*.jpg"))
    assert guarded(predict.main, [str(evaluated / "model.pth"), str(photo), "--to", str(tmp_path)]) == 2
    assert "predictions.json is there and not made by predict.py" in capsys.readouterr().err
    assert (tmp_path / "predictions.json").read_text() == '{"mine": 1}'


def test_a_list_of_classes_of_ones_own_is_kept(evaluated, voc, tmp_path, capsys):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "classes.txt").write_text("mine\n")
    photo = next((voc / "images").glob("v*.jpg"))
    assert guarded(predict.main, [str(evaluated / "model.pth"), str(photo), "--to", str(tmp_path / "made")]) == 2
    assert "classes.txt is there and not made by predict.py" in capsys.readouterr().err
    assert (tmp_path / "made" / "classes.txt").read_text() == "mine\n"

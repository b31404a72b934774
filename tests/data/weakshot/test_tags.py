import pytest

from data.classes import ClassList, load_classes
from data.weakshot.tags import read_tags
from utils.errors import UserError

CLASSES = ClassList(("background", "cat", "traffic light", "dog"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tags.csv", "id,tags\na,cat;traffic light\nb,\nc,dog\n"),
        ("tags.csv", "a,cat,traffic light\n\nb\nc , 3\n"),  # further cells, numbers, no head
        ("tags.csv", "\ufeffimage,cat 1,cat 2\na,cat,2\nb,,\nc,dog; dog\n"),
        ("tags.yaml", "a: [cat, 2]\nb: []\nc: [dog]\n"),
    ],
)
def test_tags_in_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_tags(tmp_path / name, CLASSES) == {"a": {1, 2}, "b": set(), "c": {3}}


def test_numbers_of_a_data_set_without_background_count_from_0(tmp_path):
    (tmp_path / "tags.csv").write_text("a,0;170\n")
    assert read_tags(tmp_path / "tags.csv", load_classes("cocostuff10k")) == {"a": {0, 170}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "tags.csv",
            "a,cat\nb,dgo\n",
            r"tags\.csv, image 'b': unknown class 'dgo' \(names, or numbers 1-3\); did you mean",
        ),
        ("tags.csv", "a,4\n", r"tags\.csv, image 'a': unknown class '4'"),
        ("tags.csv", "a,background\n", r"image 'a': unknown class 'background'"),
        ("tags.csv", "a,cat\na,dog\n", r"tags\.csv: image 'a' occurs twice; give all its tags in one line"),
        ("tags.csv", "id,tags\n", r"tags\.csv: no image; expected a CSV file"),
        ("tags.csv", 'a,"cat\n', r"tags\.csv: unexpected end of data; expected a CSV file"),
        ("tags.csv", f"a,{'b' * 200_000}\n", r"tags\.csv: field larger than field limit"),
        ("tags.csv", "a\0,cat\n", r"tags\.csv: contains zero bytes"),
        ("tags.yaml", "- a\n", r"tags\.yaml: no mapping; expected a CSV file"),
        ("tags.yaml", "a: cat\n", r"tags\.yaml, image 'a': expected a list of class names or numbers, got 'cat'"),
    ],
)
def test_bad_tags_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_tags(tmp_path / name, CLASSES)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"data\.tags=.*none\.csv: no such file; give crop, image, or a file of tags"):
        read_tags(tmp_path / "none.csv", CLASSES)
    (tmp_path / "tags.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"tags\.csv: line 1 is not in utf-16"):
        read_tags(tmp_path / "tags.csv", CLASSES)

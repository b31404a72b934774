"""Names of clusters: merging, dropping, and the numbers that follow."""

import pytest

from utils.cluster_names import cluster_classes, read_cluster_names, set_aside, write_cluster_names
from utils.errors import UserError

KNOWN = [(0, "background"), (1, "cat"), (2, "cow")]


def test_without_names_clusters_are_numbered():
    assert cluster_classes(KNOWN, 2, {}) == [(3, "cluster 1"), (4, "cluster 2")]


def test_several_share_a_name_some_are_dropped_one_is_a_known_class():
    names = {1: "dog", 2: "horse", 4: "drop", 5: "horse", 6: "cow"}
    found = cluster_classes(KNOWN, 7, names)
    assert found == [
        (3, "dog"),
        (4, "horse"),
        (5, "cluster 3"),
        (0, "background"),
        (4, "horse"),
        (2, "cow"),
        (6, "cluster 7"),
    ]


def test_a_file_is_written_and_read(tmp_path):
    assert read_cluster_names(tmp_path) == {}
    write_cluster_names(tmp_path, {2: "great dane", 1: "drop"}, "5a")
    assert read_cluster_names(tmp_path) == read_cluster_names(tmp_path, "5a") == {1: "drop", 2: "great dane"}


def test_names_stick_to_the_clusters_that_they_were_given_to(tmp_path, caplog):
    write_cluster_names(tmp_path, {1: "dog"}, "5a")
    set_aside(tmp_path, "5a")  # made again, the same
    assert not caplog.text and read_cluster_names(tmp_path) == {1: "dog"}
    assert read_cluster_names(tmp_path, "6b") == {}
    set_aside(tmp_path, "6b")
    assert read_cluster_names(tmp_path) == {} and (tmp_path / "clusters_before.yaml").exists()
    assert "now clusters_before.yaml, name them again" in caplog.text


@pytest.mark.parametrize("text", ["[dog]", "dog: 1", "0: dog", "1: [dog]", "1: ''"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "clusters.yaml").write_text(text)
    with pytest.raises(UserError, match=r"clusters\.yaml: expected lines 'cluster number: name'"):
        read_cluster_names(tmp_path)

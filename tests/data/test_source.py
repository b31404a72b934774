import pytest

from data.layouts import FOLDER
from data.source import DRY_IMAGES, DataContext
from utils.config.reader import load_config
from utils.errors import UserError


def test_data_root(tiny, tmp_path, monkeypatch):
    config = load_config([str(tiny), "data.root=null", "data.dataset=demo"], "")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    assert DataContext.open(config).root == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("DATA_ROOT", f"~/{tmp_path.name}")
    assert DataContext.open(config).root == tmp_path
    assert DataContext.open(load_config([str(tiny), f"data.root=~/{tmp_path.name}"], "")).root == tmp_path
    monkeypatch.delenv("DATA_ROOT")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data.root=datasets/demo: no such folder"):
        DataContext.open(config)
    (tmp_path / "datasets" / "demo").mkdir(parents=True)
    assert str(DataContext.open(config).root) == "datasets/demo"


def test_a_dry_run_sees_the_head_of_a_list(tiny):
    whole = DataContext.open(load_config([str(tiny)], ""))
    dry = DataContext.open(load_config([str(tiny), "run.dry=true"], ""))
    assert dry.cut(range(100)) == list(range(DRY_IMAGES)) and whole.cut(range(100)) == list(range(100))


def test_the_layout_may_be_named(tiny, voc):
    assert DataContext.open(load_config([str(tiny), "data.layout=folder"], "")).layout is FOLDER

"""The configuration as written, and every way to get it wrong."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import cluster_pseudolabel
import entropy_rank
import eval as evaluation
import finetune_novel
import train_base
import train_zeroshot
from utils.config.common import Common
from utils.config.discovery import DiscoveryConfig
from utils.config.keys import all_keys
from utils.config.reader import dump, load_config
from utils.config.strict_yaml import StrictLoader, read_yaml
from utils.errors import UserError
from utils.run import guarded
from utils.systems import SYSTEMS, schema_of

CONFIGS = sorted((Path(__file__).parents[3] / "configs").rglob("*.yaml"))


def load(folder: Path, text: str, *overrides: str) -> DiscoveryConfig:
    path = folder / "a.yaml"
    path.write_text(text)
    return load_config([str(path), *overrides], "usage", systems=("ncdss",))


def mistake(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, text, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4),  # text in YAML 1.1
        ("1E5", 1e5),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("010", "010"),  # 8 in YAML 1.1
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("no", "no"),  # false in YAML 1.1
        ("on", "on"),
        ("2026-01-02", "2026-01-02"),  # a date in YAML 1.1
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("'12'", "12"),
        ("[1, a, 2.5]", [1, "a", 2.5]),
        ("fold1", "fold1"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_values_are_what_they_look_like(text, value):
    read = yaml.load(f"key: {text}", StrictLoader)["key"]
    assert read == value and type(read) is type(value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()))
def test_numbers_survive_their_python_spelling(value):
    text = {"True": "true", "False": "false", "None": "null"}.get(repr(value), repr(value))
    read = yaml.load(f"key: {text}", StrictLoader)["key"]
    assert read == value and type(read) is type(value)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc:#-' 01é~\n{[", max_size=9)
)


@given(
    st.recursive(
        SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text("abz_", min_size=1), inner), max_leaves=5
    )
)
def test_what_yaml_writes_is_read_back(tree):
    assert yaml.load(yaml.safe_dump(tree, allow_unicode=True), StrictLoader) == tree


def test_repeated_key(tmp_path):
    message = mistake(tmp_path, "seed: 1\nsplit: x\nseed: 2\n")
    assert "a.yaml" in message and "key 'seed' appears twice" in message
    assert "key 'lr' appears twice, in or below line 2" in mistake(tmp_path, "seed: 1\nbasic: {lr: 1, lr: 2}\n")
    assert "basic: cannot read the value" in mistake(tmp_path, "", "basic={lr: 1, lr: 2}")


@pytest.mark.parametrize("text", ["1: 2", "null: 2", "{}: 2", "[a]: 2", "basic: {1: 2}", "? {a: 1}\n: 2"])
def test_keys_that_are_no_words(tmp_path, text):
    assert "a.yaml" in mistake(tmp_path, text)


def test_invalid_yaml_names_file_and_line(tmp_path):
    message = mistake(tmp_path, "seed: 1\nbasic: [1, 2\nsplit: x\n")
    assert "a.yaml: not valid YAML" in message and "line" in message
    assert "expected key: value lines, got list" in mistake(tmp_path, "- 1\n- 2\n")
    with pytest.raises(UserError, match="none.yaml: no such file"):
        load_config([str(tmp_path / "none.yaml")], "")


def test_layers_override_in_order(tmp_path):
    (tmp_path / "parent.yaml").write_text("seed: 1\nbasic: {lr: 0.5, epochs: 3}\ncluster: {k: 4}\n")
    cfg = load(tmp_path, "base: parent.yaml\nbasic: {lr: 0.25}\ncluster: {k: 5}\n", "cluster.k=6", "split=mine")
    assert (cfg.seed, cfg.basic.lr, cfg.basic.epochs, cfg.cluster.k, cfg.split) == (1, 0.25, 3, 6, "mine")
    assert cfg.basic.momentum == 0.9


def test_base_is_relative_to_the_file_and_extended_once(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "parent.yaml").write_text("seed: 5\n")
    (tmp_path / "sub" / "a.yaml").write_text("base: parent.yaml\n")
    assert load_config([str(tmp_path / "sub" / "a.yaml")], "", systems=("ncdss",)).seed == 5
    message = mistake(tmp_path, "base: sub/a.yaml\n")
    assert "sub/a.yaml: key 'base' is not allowed here" in message
    assert "missing.yaml: no such file" in mistake(tmp_path, "base: missing.yaml\n")


def test_lists_replace_and_sections_merge(tmp_path):
    (tmp_path / "parent.yaml").write_text(
        "eums: {reassign_epochs: [1, 2, 3], epochs: 9}\nexpected: {miou: 0.5, tol: 0.1}\n"
    )
    cfg = load(tmp_path, "base: parent.yaml\neums: {reassign_epochs: [7]}\nexpected: {base_miou: 0.6}\n")
    assert cfg.eums.reassign_epochs == (7,) and cfg.eums.epochs == 9
    assert cfg.expected == {"base_miou": 0.6}


def test_overrides_are_yaml_values(tmp_path):
    cfg = load(
        tmp_path,
        "seed: 1\n",
        *("basic.lr=1e-3", "eums.reassign_epochs=[2, 4]", "data.cache=true", "resume=false", "data.root=/a=b/c"),
        *("expected={miou: 0.5}", "cluster.pca_dim=null", "model.trained=[layer4]", "split=010"),
    )
    assert cfg.basic.lr == 1e-3 and cfg.eums.reassign_epochs == (2, 4) and cfg.data.cache is True
    assert cfg.resume == "false" and cfg.data.root == Path("/a=b/c") and cfg.expected == {"miou": 0.5}
    assert cfg.cluster.pca_dim is None and cfg.model.trained == ("layer4",) and cfg.split == "010"


@pytest.mark.parametrize(
    "override, parts",
    [
        ("basic.lrr=1", ["unknown key 'basic.lrr'", "did you mean 'basic.lr'"]),
        ("clustr.k=1", ["unknown key 'clustr.k'; did you mean 'cluster.k'?"]),
        ("modle.backbone=x", ["unknown key 'modle.backbone'; did you mean 'model.backbone'?"]),
        ("epochs=3", ["unknown key 'epochs'", "did you mean"]),
        ("xyzzy=1", ["unknown key 'xyzzy'", "--help"]),
        ("basic.lr=fast", ["basic.lr", "valid number", "'fast'"]),
        ("basic.lr=-1", ["basic.lr", "greater than 0", "-1"]),
        ("basic.lr=0", ["basic.lr", "greater than 0"]),
        ("basic.epochs=1.5", ["basic.epochs", "1.5"]),
        ("basic.momentum=2", ["basic.momentum", "less than or equal to 1", "2"]),
        ("method=eumss", ["method", "'base', 'basic' or 'eums'", "'eumss'"]),
        ("data.border=none", ["data.border", "'background' or 'ignore'"]),
        ("model.output_stride=4", ["model.output_stride", "8, 16 or 32", "4"]),
        ("model=resnet50", ["model", "resnet50"]),
        ("seed=no", ["seed", "valid integer", "'no'"]),
        ("seed=", ["seed", "None"]),
        ("basic=", ["basic", "None"]),
        ("seed=[1", ["seed: cannot read the value '[1'"]),
        ("a b", ["got 2"]),
        ("--quick", ["--quick: unknown option", "--help"]),
        ("base=other.yaml", ["base"]),
    ],
)
def test_mistakes_are_one_line_with_key_and_cure(tmp_path, override, parts):
    message = mistake(tmp_path, "split: x\n", override)
    assert all(part in message for part in parts), message


def test_override_replaces_nothing_else(tmp_path):
    cfg = load(tmp_path, "basic: {lr: 0.5, epochs: 7}\n", "basic.lr=0.25")
    assert cfg.basic.epochs == 7
    cfg = load(
        tmp_path, "basic: {lr: 0.5}\n", "basic.epochs=7", "basic={lr: 0.25}", "basic={momentum: 0}", "basic.lr=0.125"
    )
    assert (cfg.basic.epochs, cfg.basic.lr, cfg.basic.momentum) == (7, 0.125, 0)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: "/".join(path.parts[-2:]))
def test_shipped_configurations_are_valid_and_name_their_system(path):
    assert isinstance(load_config([str(path)], ""), schema_of(read_yaml(path)["system"]))


def test_the_system_is_named_or_the_only_one_allowed(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\n")
    (tmp_path / "c.yaml").write_text("system: ssl\n")
    with pytest.raises(UserError, match="a.yaml: no key 'system'; add one of ncdss, ssul, maskcontrast, probe"):
        load_config([str(tmp_path / "a.yaml")], "")
    assert load_config([str(tmp_path / "a.yaml")], "", systems=("probe",)).system == "probe"
    with pytest.raises(UserError, match="system: ssl is unknown; did you mean 'ssul'"):
        load_config([str(tmp_path / "c.yaml")], "")
    with pytest.raises(UserError, match="a.yaml: is of system: ssul; train_base.py runs ncdss"):
        load_config([str(tmp_path / "a.yaml"), "system=ssul"], "", "train_base.py", ("ncdss",))


@pytest.mark.parametrize(
    "script, system, given, said",
    [
        ("train_incremental.py", "ssul", "checkpoint=x.pth", "checkpoint: read by eval.py and probe_features.py"),
        ("train_incremental.py", "ssul", "save_predictions=true", "train_incremental.py would ignore it"),
        ("train_incremental.py", "ssul", "init_from=x.pth", "means nothing to system ssul; it is one of ncdss"),
        ("train_incremental.py", "ssul", "plop.pod=1", "plop.pod: for method=plop; ignored with method=ssul"),
        ("train_incremental.py", "ssul", "ssul.memory=7", "ssul.memory: for method=ssul_m; ignored with method=ssul"),
        ("train_incremental.py", "ssul", "pseudo_dir=x", "pseudo_dir: for setting=discovered"),
        ("train_base.py", "ncdss", "kmeans.n_init=1", "means nothing to system ncdss; it is one of probe"),
        ("probe_features.py", "probe", "kmeans.n_init=1", "kmeans.n_init: for mode=kmeans; ignored with mode=linear"),
        ("train_base.py", "ncdss", "checkpoint=x.pth", "train_base.py would ignore it"),
    ],
)
def test_keys_that_would_be_ignored_are_refused(tmp_path, script, system, given, said):
    (tmp_path / "a.yaml").write_text(f"system: {system}\n")
    with pytest.raises(UserError) as caught:
        load_config([str(tmp_path / "a.yaml"), given], "", script)
    assert said in str(caught.value)


@pytest.mark.parametrize("system", ["maskcontrast", "probe"])
def test_systems_without_another_list_need_the_training_one(tmp_path, system):
    (tmp_path / "a.yaml").write_text(f"system: {system}\ndata: {{train_list: null}}\n")
    with pytest.raises(UserError, match="data.train_list: input should be a valid string, got None"):
        load_config([str(tmp_path / "a.yaml")], "")


def test_a_file_may_hold_what_another_method_or_script_reads(tmp_path):
    (tmp_path / "a.yaml").write_text("system: ssul\nplop: {pod: 0.5}\ncheckpoint: x.pth\nssul: {memory: 3}\n")
    cfg = load_config([str(tmp_path / "a.yaml")], "", "train_incremental.py")
    assert (cfg.plop.pod, cfg.ssul.memory) == (0.5, 3)
    assert load_config([str(tmp_path / "a.yaml"), "plop.pod=1"], "", "eval.py").plop.pod == 1


def test_own_keys_are_free_and_read_as_attributes(tmp_path):
    cfg = load(tmp_path, "own: {gamma: 2.0, loss: {name: focal}}\n", "own.gamma=3")
    assert cfg.own.gamma == 3 and cfg.own.loss.name == "focal"
    assert cfg.model_dump(mode="json")["own"] == {"gamma": 3, "loss": {"name": "focal"}}


def test_effective_configuration_reproduces_itself(tmp_path):
    cfg = load(tmp_path, "basic: {lr: 1e-5}\nexpected: {miou: 0.5}\ndata: {root: /data}\nmodel: {trained: [layer4]}\n")
    (tmp_path / "again.yaml").write_text(dump(cfg, tmp_path / "again.yaml"))
    assert load_config([str(tmp_path / "again.yaml")], "") == cfg
    assert DiscoveryConfig.model_validate(read_yaml(tmp_path / "again.yaml")) == cfg


@pytest.mark.parametrize(
    "script, system",
    [
        (train_base, "ncdss"),
        (train_base, "zs3"),
        (cluster_pseudolabel, ""),
        (finetune_novel, ""),
        (entropy_rank, ""),
        (train_zeroshot, ""),
    ],
)
def test_help_lists_every_key(script, system, tmp_path, capsys):
    """Of the one system that a script runs, or that the configuration is of."""
    (tmp_path / "a.yaml").write_text(f"system: {system}\n")
    with pytest.raises(SystemExit) as end:
        guarded(script.main, [*([str(tmp_path / "a.yaml")] if system else []), "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "python " + script.__file__.rsplit("/", 1)[-1] in shown
    schema = schema_of(system or ("zs3" if script is train_zeroshot else "ncdss"))
    assert all(f"  {key} " in shown for key in all_keys(schema))


def test_help_is_that_of_the_configuration_s_system(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("system: ssul\n")
    for arguments, shown, hidden in (
        ([str(tmp_path / "a.yaml")], all_keys(schema_of("ssul")), ["cluster.k"]),
        ([], [*all_keys(Common), *SYSTEMS], ["cluster.k", "plop.pod"]),
    ):
        with pytest.raises(SystemExit) as end:
            guarded(evaluation.main, [*arguments, "--help"])
        text = capsys.readouterr().out
        assert end.value.code == 0 and all(f"  {key} " in text for key in shown)
        assert not any(f"  {key} " in text for key in hidden)


def test_every_key_is_explained():
    def undocumented(schema, prefix=""):
        for key, field in schema.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from undocumented(field.annotation, f"{prefix}{key}.")
            elif not field.description:
                yield prefix + key

    assert not [key for name in SYSTEMS for key in undocumented(schema_of(name))]


def test_print_config_tells_where_a_value_is_from(tmp_path, capsys):
    (tmp_path / "parent.yaml").write_text("seed: 1\n")
    with pytest.raises(SystemExit) as end:
        load(tmp_path, "base: parent.yaml\nsplit: mine\n", "basic.lr=0.5", "--print-config")
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and len(lines) == len(all_keys(DiscoveryConfig))
    assert f"seed: 1  # {tmp_path}/parent.yaml" in lines and f"split: 'mine'  # {tmp_path}/a.yaml" in lines
    assert "basic.lr: 0.5  # command line" in lines and "basic.momentum: 0.9  # default" in lines


# ---- values that could be read, and are not meant


@pytest.mark.parametrize(
    "override, said",
    [
        ("basic.epochs=true", "basic.epochs: input should be a valid integer, got True"),
        ("basic.epochs=1_000", "basic.epochs: input should be a valid integer, got '1_000'"),
        ("basic.epochs=010", "basic.epochs: input should be a valid integer, got '010'"),
        ("basic.milestones=[true]", "basic.milestones: input should be a valid integer, got [True]"),
        ("basic.clip_norm='1'", "basic.clip_norm: input should be a valid number, got '1'"),
        ("basic.lr=.inf", "basic.lr: input should be a finite number"),
        ("basic.lr=.nan", "basic.lr: input should be a finite number"),
        ("data.image_size=1", "data.image_size: input should be greater than or equal to 16"),
        ("seed=18446744073709551616", "seed: input should be less than 4294967296"),
        ("basic={optimizer: adamw, nesterov: true}", "basic: nesterov=true: for optimizer=sgd only"),
        ("basic={momentum: 0, nesterov: true}", "basic: nesterov=true: needs a momentum above 0"),
        ("basic={epochs: 9, milestones: [3, 9]}", "basic.milestones: epoch 9 never comes with basic.epochs=9"),
        ("eums={epochs: 9, reassign_epochs: [9]}", "eums.reassign_epochs: epoch 9 never comes with eums.epochs=9"),
        ("basic={epochs: 2, iters_per_epoch: 3, eval_steps: 7}", "basic.eval_steps: never comes in 6 steps"),
    ],
)
def test_doubtful_values_are_refused(tmp_path, override, said):
    assert said in mistake(tmp_path, "system: ncdss\n", override)


def test_the_last_epoch_is_within_the_training(tmp_path):
    cfg = load(tmp_path, "basic: {epochs: 9, milestones: [8], iters_per_epoch: 2, eval_steps: 18}\n")
    assert cfg.basic.milestones == (8,)


def test_a_training_shortened_by_a_later_source_keeps_its_milestones_with_a_warning(tmp_path, caplog):
    text = "basic: {epochs: 9, milestones: [3]}\n"
    cfg = load(tmp_path, text, "basic.epochs=2")
    assert cfg.basic.milestones == (3,) and "basic.milestones: epoch 3 never comes with basic.epochs=2" in caplog.text
    assert "never comes" in mistake(tmp_path, text, "basic.epochs=2", "basic.milestones=[3]")
    (tmp_path / "parent.yaml").write_text(text)
    assert load(tmp_path, "base: parent.yaml\nbasic: {epochs: 2}\n").basic.milestones == (3,)
    (tmp_path / "config.yaml").write_text(dump(cfg, tmp_path / "config.yaml"))
    assert load_config([str(tmp_path / "config.yaml")], "") == cfg  # what a run wrote is read again


def test_a_file_that_extends_itself(tmp_path):
    assert "a.yaml: base: a.yaml is this file itself" in mistake(tmp_path, "base: a.yaml\n")


def test_home_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = load(tmp_path, "output_dir: ~/x\n", "data.root=~/voc", "model.init=~/w.pth", "init_from=~/a.pth")
    assert (cfg.output_dir, cfg.data.root) == (tmp_path / "x", tmp_path / "voc")
    assert cfg.model.init == str(tmp_path / "w.pth") and cfg.init_from == tmp_path / "a.pth"

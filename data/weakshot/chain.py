"""Where the stages of weak-shot segmentation find what earlier ones made, unless the configuration names a path."""

from pathlib import Path

from data.weakshot.cluster_masks import IDS
from utils.config.weakshot import TRAINS, WeakShotConfig
from utils.run_folder import require_stage

PSEUDO = "labels"  # folder in the stage of pseudo-labels


def labelled_by(cfg: WeakShotConfig) -> Path:
    """What labels the training images: a network, or a folder of clusters; UserError when it is not made."""
    if cfg.method == "clusters":
        return cfg.clusters_dir or require_stage(cfg, "pseudo", IDS, "cluster_pseudolabel.py").parent
    return cfg.labels_checkpoint or require_stage(cfg, cfg.trained.stage, "last.pth", cfg.trained.made_by)


def label_folder(cfg: WeakShotConfig) -> Path:
    """Pseudo-labels to learn from; UserError when they are not made."""
    method = cfg.retraining.labels_by
    made_by = f"{TRAINS} CONFIG method={method} stage=pseudo"
    return cfg.pseudo_dir or require_stage(cfg, f"{method}_pseudo", PSEUDO, made_by)

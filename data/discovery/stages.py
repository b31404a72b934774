"""Outputs of earlier stages of class discovery: a configured path, or the folder of the finished stage."""

from pathlib import Path

from data.pseudo_labels import CLUSTERED
from utils.checkpoint import read_json
from utils.config.discovery import DiscoveryConfig
from utils.errors import UserError
from utils.run_folder import METRICS, require_stage


def base_model(cfg: DiscoveryConfig, epoch: str = "best") -> Path:
    """`base_checkpoint`, else a model of the base stage."""
    return cfg.base_checkpoint or require_stage(cfg, "base", f"{epoch}.pth", "train_base.py")


def basic_model(cfg: DiscoveryConfig, epoch: str = "best") -> Path:
    """`basic_checkpoint`, else a model of basic fine-tuning."""
    made_by = "finetune_novel.py CONFIG method=basic"
    return cfg.basic_checkpoint or require_stage(cfg, "basic", f"{epoch}.pth", made_by)


def pseudo_folder(cfg: DiscoveryConfig) -> Path:
    """`pseudo_dir`, else the folder of the clustering stage."""
    stage = f"pseudo{cfg.reference}"
    return cfg.pseudo_dir or require_stage(cfg, stage, "novel.txt", "cluster_pseudolabel.py").parent


def ranking_folder(cfg: DiscoveryConfig) -> Path:
    """`split_dir`, else the folder of the ranking stage."""
    return cfg.split_dir or require_stage(cfg, "ranking", "easy_split.txt", "entropy_rank.py").parent


def start_model(cfg: DiscoveryConfig) -> tuple[Path | None, str]:
    """(checkpoint that fine-tuning starts from, the part of it that is loaded: "backbone", or "" for all parts)."""
    if cfg.method == "eums" and cfg.eums.init_from_basic:
        return basic_model(cfg, "last"), ""  # not the best epoch, which validation labels select
    if cfg.init_from or not getattr(cfg, cfg.method).init_from_base:
        return cfg.init_from, "backbone"
    return base_model(cfg), "backbone"


def pseudo_files(folder: Path, *names: str) -> dict[str, Path]:
    """Inputs of a stage that trains on a pseudo-label folder, by name."""
    return {name: folder / f"{name}.txt" for name in names} | {CLUSTERED: folder / CLUSTERED}


def num_clusters(cfg: DiscoveryConfig) -> int:
    """K: `cluster.k`, or with `auto` the estimate of the clustering stage. Raises UserError if it has not run."""
    if cfg.cluster.k != "auto":
        return cfg.cluster.k
    path = pseudo_folder(cfg) / METRICS
    k = read_json(path).get("k") if path.is_file() else None
    if not isinstance(k, int):
        raise UserError(f"cluster.k=auto: {path} does not contain the number of clusters; set cluster.k")
    return k

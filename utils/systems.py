"""The systems, one record each: what leads from `system:` in a configuration or checkpoint to everything else.

A part is named as "module:attribute" and imported when it is asked for, so that a mistake in a configuration is
answered without importing torch. The doors to the parts are typed where they lie: `schema_of` here,
`data.protocol.open_data`, `models.segmenter.load_segmenter`, `reports.open_page` and `reports.result_table_of`.
"""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from utils.config.common import Common


@dataclass(frozen=True)
class System:
    """A system: its names, and where its parts are.

    name       value of `system:`
    setting    the problem: name of its folders in data/, models/, reports/, configs/, scripts/ and of its page in docs/
    title      one line for --help
    schema     configuration, a subclass of utils.config.common.Common
    data       builder of its data sets, a data.protocol.SystemData
    segmenter  (WeightsFile, configuration) -> models.segmenter.Segmenter
    page       configuration -> reports.page.Page
    table      columns of collect.py with the published values, a utils.report.aggregate.ResultTable
    stages     entry scripts, in the order of the method
    """

    name: str
    setting: str
    title: str
    schema: str
    data: str
    segmenter: str
    page: str
    table: str
    stages: tuple[str, ...]


_RECORDS = (
    System(
        name="ncdss",
        setting="discovery",
        title="novel class discovery (NCDSS, EUMS)",
        schema="utils.config.discovery:DiscoveryConfig",
        data="data.discovery.builder:DiscoveryData",
        segmenter="models.discovery.segmenter:load_ncdss",
        page="reports.discovery.page:page",
        table="reports.discovery.table:TABLE",
        stages=("train_base.py", "cluster_pseudolabel.py", "finetune_novel.py", "entropy_rank.py", "eval.py"),
    ),
    System(
        name="ssul",
        setting="incremental",
        title="class-incremental segmentation (SSUL, SSUL-M, MiB, PLOP)",
        schema="utils.config.incremental:IncrementalConfig",
        data="data.incremental.builder:IncrementalData",
        segmenter="models.incremental.segmenter:load_step",
        page="reports.incremental.page:page",
        table="reports.incremental.table:TABLE",
        stages=("train_incremental.py", "eval.py"),
    ),
    System(
        name="maskcontrast",
        setting="contrast",
        title="unsupervised segmentation: pre-training (MaskContrast)",
        schema="utils.config.contrast:ContrastConfig",
        data="data.contrast.builder:ContrastData",
        segmenter="models.contrast.encoder:load_saliency",
        page="reports.contrast.pretraining:page",
        table="reports.contrast.tables:PRETRAINING",
        stages=("pretrain_contrast.py", "probe_features.py"),
    ),
    System(
        name="probe",
        setting="contrast",
        title="evaluation of frozen features: linear probe, k-means, retrieval",
        schema="utils.config.probe:ProbeConfig",
        data="data.contrast.probes:ProbeData",
        segmenter="models.contrast.probes:load_linear",
        page="reports.contrast.probe:page",
        table="reports.contrast.tables:PROBES",
        stages=("probe_features.py", "eval.py"),
    ),
    System(
        name="zs3",
        setting="zeroshot",
        title="zero-shot segmentation (ZS3Net, ZS5Net)",
        schema="utils.config.zeroshot:ZeroShotConfig",
        data="data.zeroshot.builder:ZeroShotData",
        segmenter="models.zeroshot.segmenter:load_zero_shot",
        page="reports.zeroshot.page:page",
        table="reports.zeroshot.table:TABLE",
        stages=("train_base.py", "train_zeroshot.py", "eval.py"),
    ),
    System(
        name="simformer",
        setting="weakshot",
        title="weak-shot segmentation (SimFormer)",
        schema="utils.config.weakshot:WeakShotConfig",
        data="data.weakshot.builder:WeakShotData",
        segmenter="models.weakshot.simformer:load_weak_shot",
        page="reports.weakshot.page:page",
        table="reports.weakshot.table:TABLE",
        stages=("train_weakshot.py", "eval.py"),
    ),
)
SYSTEMS: dict[str, System] = {record.name: record for record in _RECORDS}


def resolve(part: str) -> Any:
    """The object behind "module:attribute". Raises ImportError or AttributeError where there is none."""
    return resolve_name(part)


def schema_of(name: str) -> type[Common]:
    """The configuration schema of a system."""
    schema: type[Common] = resolve(SYSTEMS[name].schema)
    return schema

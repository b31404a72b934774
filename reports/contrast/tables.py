"""MaskContrast: the tables over pre-trainings and over probes of frozen features, and the published values."""

from utils.report.aggregate import Column, Paper, ResultTable

PRETRAINING = ResultTable(
    columns=(Column("saliency mIoU", "saliency_miou"),),
    evaluated_by="pretrain_contrast.py",
    method=lambda stage: stage.name,
)

# VOC 2012 val; retrieval of 21 classes and of 7 (Van Gansbeke et al., ICCV 2021, and the README of its code)
PUBLISHED = {
    "supervised saliency, ImageNet start": {"linear": "63.9", "linear, CRF": "65.5", "k-means": "44.2"},
    "unsupervised saliency, MoCo start": {
        **{"linear": "58.4", "linear, CRF": "59.5", "k-means": "35.0"},
        **{"retrieval": "43.3", "kept classes": "53.4"},
    },
    "supervised saliency, MoCo start": {"retrieval": "49.6", "kept classes": "62.3"},
    "MoCo v2": {"retrieval": "39.0", "kept classes": "48.0"},
}

PROBES = ResultTable(
    columns=(
        Column("linear", "miou", "eval_linear"),
        Column("linear, CRF", "miou", "eval_linear_crf"),
        Column("k-means", "miou", "kmeans", main=True),
        Column("retrieval", "miou", "retrieval"),
        Column("kept classes", "kept_miou", "retrieval"),
        Column("k-means, patches", "miou", "kmeans_patch"),
        Column("retrieval, patches", "miou", "retrieval_patch"),
    ),
    evaluated_by="probe_features.py",
    # a row per network; the score of the stage "linear" is that of eval_linear
    method=lambda stage: stage.folder.parent.name if stage.name != "linear" else None,
    names=("features",),
    paper=Paper({("pascal", "", f"paper: {name}"): values for name, values in PUBLISHED.items()}, (), place="below"),
    about="of one run ± is over the seeds of k-means",
)

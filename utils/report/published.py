"""Results of the papers, to print beside ours. All in per cent.

Those of whole methods are (data set, split or task, row) -> {column: value}, as the result tables name them.
"""

Published = dict[tuple[str, str, str], dict[str, float]]
MEAN = "mean"  # in the place of a split: the mean over those of the paper

# novel mIoU, mean of folds 0-3, ResNet-50 (Zhao et al., CVPR 2022, abstract); those of single folds are not known here
DISCOVERY: Published = {
    ("pascal", MEAN, "basic"): {"novel mIoU": 49.81},
    ("pascal", MEAN, "EUMS"): {"novel mIoU": 59.09},
}

# mIoU of all classes, overlap (Cha et al., NeurIPS 2021, and the README of its code)
INCREMENTAL: Published = {
    (data, f"{task}-overlap", method): {"all": value}
    for data, task, values in (
        ("pascal", "10-1", (12.65, 30.45, 59.25, 64.12)),
        ("pascal", "15-1", (29.29, 54.64, 67.61, 71.37)),
        ("pascal", "5-3", (46.71, 18.68, 56.89, 58.37)),
        ("pascal", "19-1", (69.15, 73.54, 75.44, 76.49)),
        ("pascal", "15-5", (70.08, 70.09, 71.22, 73.02)),
        ("pascal", "5-1", (10.03, 6.46, 48.65, 55.11)),
        ("pascal", "2-1", (9.88, 4.47, 38.32, 44.74)),
        ("ade", "100-5", (25.96, 28.75, 32.48, 34.56)),
        ("ade", "100-10", (29.24, 31.59, 33.10, 34.46)),
        ("ade", "100-50", (32.79, 32.94, 33.58, 34.37)),
        ("ade", "50-50", (29.31, 30.40, 29.56, 29.77)),
    )
    for method, value in zip(("mib", "plop", "ssul", "ssul_m"), values, strict=True)
}

# val of VOC 2012, retrieval of 21 classes and of 7 (Van Gansbeke et al., ICCV 2021, and the README of its code)
PROBES: Published = {
    ("pascal", "", f"paper: {name}"): values
    for name, values in {
        "supervised saliency, ImageNet start": {"linear": 63.9, "linear, CRF": 65.5, "k-means": 44.2},
        "unsupervised saliency, MoCo start": {
            **{"linear": 58.4, "linear, CRF": 59.5, "k-means": 35.0},
            **{"retrieval": 43.3, "kept classes": 53.4},
        },
        "supervised saliency, MoCo start": {"retrieval": 49.6, "kept classes": 62.3},
        "MoCo v2": {"retrieval": 39.0, "kept classes": 48.0},
    }.items()
}

# the same on single classes: (linear, k-means), supervised saliency, ImageNet start (README of the code)
_PROBE_CLASSES = {
    "background": (90.95, 88.17),
    "aeroplane": (83.78, 77.41),
    "bicycle": (30.66, 26.18),
    "bird": (78.79, 68.27),
    "boat": (64.57, 47.89),
    "bottle": (67.31, 56.99),
    "bus": (84.24, 80.63),
    "car": (76.77, 66.8),
    "cat": (79.1, 46.13),
    "chair": (21.24, 0.73),
    "cow": (66.45, 0.1),
    "diningtable": (46.63, 0.57),
    "dog": (73.25, 35.93),
    "horse": (62.61, 48.68),
    "motorbike": (69.66, 60.6),
    "person": (72.3, 32.24),
    "pottedplant": (40.15, 23.88),
    "sheep": (74.7, 36.76),
    "sofa": (30.43, 26.85),
    "train": (74.67, 69.9),
    "tvmonitor": (54.66, 27.56),
}
PROBE_IOU = {  # mode and protocol, as in metrics.json
    protocol: {name: values[place] for name, values in _PROBE_CLASSES.items()}
    for place, protocol in enumerate((("linear", "image size"), ("kmeans", "image size, one vector per image")))
}

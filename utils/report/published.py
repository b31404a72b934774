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

# mIoU of seen, unseen and all classes, harmonic mean (Bucher et al., NeurIPS 2019, tables 1, 3 and 4); None: not known
_ZERO_SHOT_GROUPS = ("seen", "unseen", "all", "harmonic")
_Value = float | None
# (data set, method) -> {unseen classes: values, and which of them a third text confirms}
_ZERO_SHOT: dict[tuple[str, str], dict[int, tuple[_Value, _Value, _Value, _Value, str]]] = {
    ("pascal", "devise"): {
        2: (68.1, 3.2, None, 6.1, "seen unseen harmonic"),
        4: (64.3, 2.9, None, 5.5, ""),
        6: (39.8, 2.7, None, 5.1, ""),
        8: (35.7, 2.0, None, 3.8, ""),
        10: (31.7, 1.9, None, 3.6, "unseen harmonic"),
    },
    ("pascal", "zs3"): {
        2: (72.0, 35.4, 68.5, 47.5, "seen unseen harmonic"),
        4: (66.4, 23.2, 58.2, 34.4, ""),
        6: (47.3, 24.2, 40.7, 32.0, ""),
        8: (29.2, 22.9, 26.8, 25.7, ""),
        10: (33.9, 18.1, 26.3, 23.6, "unseen all harmonic"),
    },
    ("pascal", "zs5"): {2: (75.7, 75.8, 75.8, 75.7, "unseen all")},
    ("context", "devise"): {
        2: (35.8, 2.7, None, 5.0, "unseen harmonic"),
        4: (33.4, 2.5, None, 4.7, ""),
        6: (31.9, 2.1, None, 3.9, ""),
        8: (22.0, 1.7, None, 3.2, ""),
        10: (17.5, 1.3, None, 2.4, ""),
    },
    ("context", "zs3"): {
        2: (41.6, 21.6, 41.0, 28.4, "unseen harmonic"),
        4: (37.2, 24.9, 36.4, 29.8, "unseen"),
        6: (32.1, 20.7, 30.9, 25.2, ""),
        8: (20.9, 16.0, 20.3, 18.1, ""),
        10: (20.8, 12.7, 19.4, 15.8, "seen unseen harmonic"),
    },
    ("context", "zs3_gc"): {
        2: (41.5, 30.0, None, 34.8, "unseen harmonic"),
        4: (39.5, 29.1, None, 33.5, "unseen"),
        6: (34.8, 21.6, 33.5, 26.7, ""),
        8: (22.8, 16.8, 22.0, 19.3, ""),
        10: (24.0, 14.1, 22.3, 17.8, ""),
    },
    ("context", "zs5"): {
        2: (None, 55.5, None, None, "unseen"),
        10: (27.0, 20.7, None, 23.4, "seen unseen harmonic"),
    },
}
ZERO_SHOT: Published = {
    (data, f"unseen{count}", method): {
        group: value for group, value in zip(_ZERO_SHOT_GROUPS, row[:4], strict=True) if value is not None
    }
    for (data, method), rows in _ZERO_SHOT.items()
    for count, row in rows.items()
}
ZERO_SHOT_FROM_MEMORY = frozenset(
    (data, f"unseen{count}", method, group)
    for (data, method), rows in _ZERO_SHOT.items()
    for count, row in rows.items()
    for group in _ZERO_SHOT_GROUPS
    if group not in row[4].split()
)

# mIoU of all classes, one size at test time, ResNet-50, all classes with masks: MaskFormer's model zoo (Cheng et al.,
# NeurIPS 2021); SimFormer's own figures are not known here
UPPER_BOUNDS: Published = {
    (data, f"split{number}", "supervised"): {"all": value}
    for data, count, value in (("cocostuff10k", 9, 37.1), ("ade", 4, 44.5))
    for number in range(1, count + 1)
}

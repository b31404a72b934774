"""Published IoU of single classes, in per cent. Published values of methods are in reports/<setting>/table.py."""

# (linear, k-means): supervised saliency, ImageNet start (README of the code of Van Gansbeke et al., ICCV 2021)
_PROBES = {
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
# (mode, protocol), as in metrics.json -> {class: IoU}
PROBE_IOU = {
    protocol: {name: values[place] for name, values in _PROBES.items()}
    for place, protocol in enumerate((("linear", "image size"), ("kmeans", "image size, one vector per image")))
}

"""The kinds of faults that `prepare_data.py check` tells, without its imports, which take seconds."""

KINDS = {
    "list": "a list that cannot be used, an image that is in it twice, or one of another layout",
    "missing": "no file for an image of a list",
    "damaged": "cannot be read as it was written: cut short, or other bytes than those that were stored",
    "kind": "another depth or number of channels than is read",
    "size": "a map of another size than its image",
    "value": "a number that is no class",
    "luminance": "grey levels of VOC's colours instead of class numbers",
    "palette": "VOC's colours at other numbers",
    "saliency": "no object, or no background",
    "turned": "EXIF turns the image when it is shown: does its map lie on what is stored?",
    "overlap": "trained on and validated on",
    "duplicate": "the same picture under two names",
}

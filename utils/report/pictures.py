"""Pictures of label maps: overlays, crops of objects, sheets of pictures. Images are uint8 [H, W, 3] RGB."""

import base64
import colorsys
import io
from collections.abc import Collection, Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.labels import ignore_of

SMALLEST_NAMED = 0.012  # share of the picture below which a region gets no name
INK, MUTED = (31, 41, 51), (107, 119, 133)


def cluster_colors(count: int) -> np.ndarray:
    """Distinct colours uint8 [count, 3]: each has the largest distance, in Lab, to all colours before it."""
    tones = ((0.75, 0.95), (0.95, 0.65), (0.40, 0.90), (0.60, 0.45))  # saturation, value
    grid = [colorsys.hsv_to_rgb(hue / 40, *tone) for tone in tones for hue in range(40)]
    candidates = np.round(255 * np.array(grid)).astype(np.uint8)
    lab = cv2.cvtColor(candidates[None], cv2.COLOR_RGB2LAB)[0].astype(np.float64)
    chosen, distance = [], np.full(len(lab), np.inf)
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return candidates[chosen].reshape(count, 3)


def fit_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(height, width) with the proportions of `shape` and the longer side `side`."""
    height, width = shape[:2]
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, size[::-1], interpolation=method)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a label map [H, W] with smooth borders, for pictures: the largest interpolated class mask wins."""
    values = np.unique(label)
    method = cv2.INTER_AREA if size[0] < label.shape[0] else cv2.INTER_LINEAR
    layers = [cv2.resize((label == value).astype(np.float32), size[::-1], interpolation=method) for value in values]
    return values[np.argmax(layers, axis=0)]


def square(image: np.ndarray, side: int) -> np.ndarray:
    """Centre a picture of at most side x side on a white square."""
    height, width = image.shape[:2]
    canvas = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = image
    return canvas


def overlay(
    image: np.ndarray,
    label: np.ndarray,
    colors: np.ndarray,
    names: Mapping[int, str],
    strong: Collection[int] = (),
    side: int = 240,
) -> np.ndarray:
    """A label map in colour over a pale copy of the image, with the names of larger regions: [side, side, 3].

    label uint8 or uint16 [H, W]: 0 stays clear, the ignored value turns white; colors uint8 [n, 3], taken in turn.
    Classes in `strong` get a white outline and a filled name tag, the others a discreet one.
    """
    size = fit_size(image.shape, side)
    image, label = resize_image(image, size), resize_label(label, size)
    ground = _pale(image)
    ignored = (label == ignore_of(label))[..., None]
    marked = (label > 0)[..., None] & ~ignored
    picture = np.where(marked, 0.34 * ground + 0.66 * np.take(colors, label, axis=0, mode="wrap"), ground)
    picture = np.where(ignored, 0.3 * ground + 0.7 * 255, picture).astype(np.uint8)
    for value in _named(label):
        outline, _ = cv2.findContours((label == value).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        edge = (255, 255, 255) if value in strong else (225, 228, 232)
        cv2.drawContours(picture, outline, -1, edge, 2 if value in strong else 1, cv2.LINE_AA)
    canvas = Image.fromarray(picture)
    for value in sorted(_named(label), key=lambda v: v in strong):  # strong names on top
        if value in names and np.mean(label == value) > SMALLEST_NAMED:
            color = tuple(colors[value % len(colors)].tolist())
            _tag(canvas, names[value], _inside(label == value), color, value in strong)
    return square(np.array(canvas), side)


def spotlight(image: np.ndarray, mask: np.ndarray, side: int = 240) -> np.ndarray:
    """The image where mask [H, W] is positive, in proportion to the mask, dark elsewhere: [side, side, 3]."""
    size = fit_size(image.shape, side)
    strength = mask.astype(np.float32) / max(1, mask.max())
    strength = np.clip(cv2.resize(strength, size[::-1], interpolation=cv2.INTER_LINEAR), 0, 1)[..., None]
    image = resize_image(image, size).astype(np.float32)
    dark = 0.2 * image.mean(-1, keepdims=True) + 22  # night around what is kept
    return square((strength * image + (1 - strength) * dark).astype(np.uint8), side)


def plain(image: np.ndarray, side: int = 240) -> np.ndarray:
    return square(resize_image(image, fit_size(image.shape, side)), side)


def crop_object(image: np.ndarray, mask: np.ndarray, side: int = 96, margin: float = 0.12) -> np.ndarray:
    """A square around the positive pixels of mask [H, W], all other pixels pale: [side, side, 3]."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return np.full((side, side, 3), 255, np.uint8)
    middle_y, middle_x = (rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2
    extent = (1 + 2 * margin) * max(int(np.ptp(rows)), int(np.ptp(columns)), 1)
    faded = np.where((mask > 0)[..., None], image, 0.25 * image + 0.75 * 255).astype(np.uint8)
    scale = side / extent
    shift = np.array([[scale, 0, side / 2 - scale * middle_x], [0, scale, side / 2 - scale * middle_y]])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(faded, shift, (side, side), flags=method, borderValue=(255, 255, 255))


def sheet(
    columns: Sequence[Sequence[np.ndarray]],
    row_names: Sequence[str],
    heading: str,
    legend: Sequence[tuple[str, np.ndarray]],
) -> np.ndarray:
    """One picture of square cells: a column per image, a named row per kind of picture, a colour legend below."""
    side, gap, left, bottom = columns[0][0].shape[0], 8, 118, 56
    width = left + len(columns) * (side + gap)
    height = len(row_names) * (side + gap) + bottom
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(row_names):
        middle = row * (side + gap) + side / 2
        draw.multiline_text((left - 16, middle), name.replace(" ", "\n"), INK, _font(22), anchor="rm", align="right")
        for column, cells in enumerate(columns):
            canvas.paste(Image.fromarray(cells[row]), (left + column * (side + gap), row * (side + gap)))
    x, middle, font = float(left), height - bottom / 2 + 2, _font(21)
    draw.text((x, middle), heading, MUTED, font, anchor="lm")
    x += font.getlength(heading) + 20
    for text, color in legend:
        draw.rounded_rectangle((x, middle - 10, x + 20, middle + 10), 5, tuple(np.asarray(color).tolist()))
        draw.text((x + 29, middle), text, INK, font, anchor="lm")
        x += 29 + font.getlength(text) + 30
    return np.array(canvas)


def data_uri(image: np.ndarray, quality: int = 88) -> str:
    """A picture as JPEG in the text of an <img src>."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pale(image: np.ndarray) -> np.ndarray:
    """The image with less colour and contrast, so that the colours of classes stand out."""
    return 0.45 * image + 0.35 * image.mean(-1, keepdims=True) + 0.20 * 235


def _named(label: np.ndarray) -> list[int]:
    return [int(value) for value in np.unique(label) if value not in (0, ignore_of(label))]


def _inside(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the point in a mask with the largest distance to its border."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(x), int(y)


def _tag(canvas: Image.Image, text: str, at: tuple[int, int], color: tuple[int, ...], strong: bool) -> None:
    """Write `text` on a rounded tag centred at (x, y), moved as far as needed to stay in the picture."""
    font = _font(canvas.height // 12 + 1 if strong else canvas.height // 15)
    width, height = font.getlength(text) + 12, font.size + 8
    left = min(max(at[0] - width / 2, 2), max(canvas.width - width - 2, 2))
    top = min(max(at[1] - height / 2, 2), max(canvas.height - height - 2, 2))
    layer = Image.new("RGBA", canvas.size)
    draw = ImageDraw.Draw(layer)
    fill, line = ((*color, 255), (255, 255, 255, 255)) if strong else ((20, 26, 33, 130), None)
    draw.rounded_rectangle((left, top, left + width, top + height), 6, fill, line, 2)
    bright = strong and np.dot(color, (0.299, 0.587, 0.114)) > 150
    draw.text((left + width / 2, top + height / 2), text, INK if bright else "white", font, anchor="mm")
    canvas.paste(layer, mask=layer)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # of a given size it is
    return font

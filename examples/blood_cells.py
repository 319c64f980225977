"""Where are the blood cells, and of which kind? A detector from training to boxes drawn by the int8 file.

BCCD: photographs through a microscope, 640 x 480, with boxes of three kinds of cells; 292 to learn from, 72 to test on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import flow
import numpy as np
import outcome
from absl import flags
from PIL import Image, ImageDraw

import tfcompress as tfc
from tfcompress.detection import Detections, anchor_grid, map_shapes
from tfcompress.detection.anchors import targets

CLASSES = ("RBC", "WBC", "Platelets")
COLOURS = ("red", "blue", "green")
ORIGIN = "BCCD_Dataset (github.com/Shenggan/BCCD_Dataset, MIT)"
ROWS, COLUMNS = 144, 192  # 640 x 480, divided by 10 / 3
SHAPE = (ROWS, COLUMNS, 3)
# Red cells are 105 x 105 pixels of 640 x 480, white ones about 200 x 180, platelets 39 x 39.
SIZES = (
    ((0.065, 0.049), (0.085, 0.064), (0.125, 0.094)),
    ((0.18, 0.135), (0.22, 0.165), (0.26, 0.195)),
    ((0.28, 0.30), (0.40, 0.24), (0.42, 0.38)),
)
MOST_CELLS = 30
OWN, FOREIGN = 0.45, 0.35  # overlap from which an anchor answers for a cell, and below which it is background
TEST, TRAIN = "test", "trainval"
ZOOM = (0.75, 1.2)  # of the window that is cut out, as a share of the picture
LIGHT, TINT = 0.25, 0.1
SHOWN_SCORE = 0.4
RECIPE = flow.Recipe(epochs=16, compressed_epochs=6, batch_size=8, learning_rate=2e-3, sparsity=0.5)
CLAIMS = {
    "float has at least 0.55 mAP50": lambda summary: summary["coco_map50"]["float32"]["mean"] >= 0.55,
    "int8 loses at most 0.03 mAP": lambda summary: outcome.most_lost(summary["coco_map"]) <= 0.03,
}


def load(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns pictures (n, 144, 192, 3) float32 in [-1, 1], cells (n, 30, 5) float32 and the pictures' names.

    A cell is [top, left, bottom, right, class] in fractions of the picture; -1 is padding.
    """
    names = flow.find_data(folder, f"ImageSets/Main/{part}.txt", origin=ORIGIN).read_text().split()
    pictures, cells = np.empty((len(names), *SHAPE), np.float32), np.full((len(names), MOST_CELLS, 5), -1, np.float32)
    for i, name in enumerate(names):
        with Image.open(flow.find_data(folder, f"JPEGImages/{name}.jpg", origin=ORIGIN)) as picture:
            width, height = picture.size
            small = picture.convert("RGB").resize((COLUMNS, ROWS), Image.Resampling.BILINEAR)
        pictures[i] = np.asarray(small, np.float32) / 127.5 - 1
        root = ElementTree.parse(flow.find_data(folder, f"Annotations/{name}.xml", origin=ORIGIN)).getroot()
        found = []
        for cell in root.iter("object"):
            left, top, right, bottom = (
                float(cell.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if right > left and bottom > top:  # four boxes of the data set are empty
                kind = CLASSES.index(cell.findtext("name", ""))
                found.append([top / height, left / width, bottom / height, right / width, kind])
        cells[i, : len(found)] = found
    return pictures, cells, names


def build() -> Any:
    """Returns the untrained detector."""
    from tfcompress.zoo.ssdlite import ssdlite

    return ssdlite(input_shape=SHAPE, classes=len(CLASSES), sizes=SIZES, name="blood_cells")


DETECTIONS = Detections(anchor_grid(map_shapes(ROWS, COLUMNS, len(SIZES)), SIZES), classes=len(CLASSES))


def seen_through(cells: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Returns cells (n, 30, 5) as they lie in windows (n, 4) of the pictures; without those whose center is outside.

    A window [top, left, bottom, right] whose ends are swapped shows the mirrored picture.
    """
    start, side = windows[:, None, :2], windows[:, None, 2:] - windows[:, None, :2]
    ends = [(cells[..., 0:2] - start) / side, (cells[..., 2:4] - start) / side]
    low, high = np.minimum(*ends), np.maximum(*ends)
    center = (low + high) / 2
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    inside = ((center > 0) & (center < 1) & (high > low)).all(axis=-1) & (cells[..., 4] >= 0)
    return np.concatenate([low, high, np.where(inside, cells[..., 4], -1)[..., None]], axis=-1)


def wanted(cells: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the detector has to answer: codes (n, anchors, 5) and scores (n, anchors, 3), float32."""
    anchors = DETECTIONS.anchors
    each = [
        targets(row[:, :4], row[:, 4].astype(np.int64), anchors, classes=len(CLASSES), positive=OWN, negative=FOREIGN)
        for row in seen_through(cells, windows)
    ]
    return np.stack([one.boxes for one in each]), np.stack([one.scores for one in each])


def augment(x: Any, y: Any) -> tuple[Any, Any]:
    """Returns pieces of the pictures, mirrored and in another light, with what the detector has to answer."""
    import tensorflow as tf

    count, most = tf.shape(x)[0], len(DETECTIONS.anchors)
    side = tf.random.uniform([count, 2], *ZOOM) * tf.random.uniform([count, 1], 0.9, 1.1)
    start = tf.random.uniform([count, 2]) * (1 - side)
    mirrored = tf.random.uniform([count, 2]) < 0.5
    windows = tf.concat([tf.where(mirrored, start + side, start), tf.where(mirrored, start, start + side)], axis=1)
    x = tf.image.crop_and_resize(x, windows, tf.range(count), (ROWS, COLUMNS), extrapolation_value=0.8)
    x = x * tf.random.uniform([count, 1, 1, 1], 1 - LIGHT, 1 + LIGHT)
    x = tf.clip_by_value(x + tf.random.uniform([count, 1, 1, 3], -TINT, TINT), -1, 1)
    codes, scores = tf.numpy_function(wanted, [y, windows], (tf.float32, tf.float32))
    codes.set_shape([None, most, 5])
    scores.set_shape([None, most, len(CLASSES)])
    return x, {"boxes": codes, "logits": scores}


def losses() -> dict[str, Any]:
    """Returns what training makes small."""
    from tfcompress.detection import box_loss, focal_loss

    return {"boxes": box_loss, "logits": focal_loss}


def draw(
    picture: np.ndarray, boxes: np.ndarray, kinds: np.ndarray, scores: np.ndarray, *, times: int = 4
) -> Image.Image:
    """Returns the picture, so many times as large, with boxes [top, left, bottom, right] and their scores on it."""
    pixels = ((picture + 1) * 127.5).round().astype(np.uint8)
    image = Image.fromarray(pixels).resize((COLUMNS * times, ROWS * times), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for (top, left, bottom, right), kind, score in zip(boxes, kinds.astype(int), scores, strict=True):
        sides = (left * image.width, top * image.height, right * image.width, bottom * image.height)
        pen.rectangle(sides, outline=COLOURS[kind], width=3)
        pen.text((sides[0] + 5, sides[1] + 4), f"{CLASSES[kind]} {score:.0%}", fill=COLOURS[kind])
    return image


def answers(file: Path, folder: Path, test: Any, names: Sequence[str]) -> list[str]:
    """Draws what the file answers to the first test picture with all three kinds; returns it in words."""
    from tfcompress.tflite import open_model

    chosen = next(i for i, kinds in enumerate(test["classes"]) if set(range(len(CLASSES))) <= set(kinds.tolist()))
    picture = test["x"][chosen]
    found = {name: values[0] for name, values in open_model(file).run({"image": picture[None]}).items()}
    kept = (found["scores"] >= SHOWN_SCORE) & (np.arange(len(found["scores"])) < found["count"])
    boxes, kinds, scores = (found[name][kept] for name in ("boxes", "classes", "scores"))
    draw(picture, boxes, kinds, scores).save(folder / "cells.png")
    said, true = (
        ", ".join(f"{int((each == number).sum())} {name}" for number, name in enumerate(CLASSES))
        for each in (kinds, test["classes"][chosen])
    )
    return [f"cells.png: {names[chosen]} with the int8 model's boxes.", f"It finds {said}; labelled are {true}."]


def run(values: flags.FlagValues) -> None:
    """Trains and measures as the flags say."""
    from tfcompress.detection.postprocessing import OP

    folder = Path(values.data)
    x, cells, _ = load(folder, TRAIN)
    pictures, truth, names = load(folder, TEST)
    test = {"x": pictures, "boxes": truth[..., :4], "classes": truth[..., 4].astype(np.int64)}
    task = flow.Task(
        title="tfcompress example: blood cells",
        build=build,
        x=x,
        y=cells,
        test=test,
        loss=losses,
        augment=augment,
        metric=["coco_map50", "coco_map"],
        watch=(),
        settings={
            "metadata": tfc.Metadata("blood_cells", labels=CLASSES),
            "detections": DETECTIONS,
            "allow_float": OP,
        },
        answer=lambda file, place: answers(file, place, test, names),
        claims=CLAIMS,
    )
    flow.run_flags(task, RECIPE, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    return flow.command(
        run,
        flow.define_flags(name="blood_cells", data="bccd"),
        list(sys.argv[1:] if arguments is None else arguments),
        name="blood_cells",
        summary="train, compress, convert and measure a detector of blood cells, and draw what it finds",
    )


if __name__ == "__main__":
    sys.exit(main())

"""Which of four activities is it, by a watch's accelerometer and gyroscope? The example for a microcontroller.

BasicMotions: 10 s of 6 signals at 10 Hz, 40 recordings to learn from and 40 to test on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flow
import numpy as np
import outcome
from absl import flags

import tfcompress as tfc

CLASSES = ("Standing", "Running", "Walking", "Badminton")
ORIGIN = (
    "the data set BasicMotions of the UEA archive (www.timeseriesclassification.com), as sktime brings it along "
    "(BSD-3 repository)"
)
STEPS, SIGNALS = 100, 6
LARGEST_SHIFT = 20  # in samples of 0.1 s: an activity has no beginning
TURN = 0.2  # of the signals' strength: a watch sits tight or loose
NOISE = 0.05
RECIPE = flow.Recipe(epochs=60, compressed_epochs=45, batch_size=8, learning_rate=3e-3, sparsity=0.5)
CLAIMS = {
    "float answers at least 90 %": lambda summary: summary["top1"]["float32"]["mean"] >= 0.90,
    "int8 loses at most one recording in forty": lambda summary: outcome.most_lost(summary["top1"]) <= 1 / 40,
}


def load(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns recordings (40, 100, 1, 6) float32 (m/s2 and rad/s as the watch gave them) and classes (40,) int64."""
    path = flow.find_data(folder, f"BasicMotions_{part}.ts", origin=ORIGIN)
    x, y = [], []
    for line in path.read_text().splitlines():
        if line and line[0] not in "#@":
            *signals, label = line.split(":")
            x.append([[float(value) for value in signal.split(",")] for signal in signals])
            y.append(CLASSES.index(label))
    # (40, 6, 100) as stored; time first and a width of 1, so that a convolution over time is Conv2D as it is.
    return np.asarray(x, np.float32).transpose(0, 2, 1)[:, :, None], np.asarray(y, np.int64)


def build() -> Any:
    """Returns the untrained model, (n, 100, 1, 6) to (n, 4) logits; 4,140 parameters.

    It takes what the sensors give: BatchNorm behind the first convolution, which becomes part of it, levels the signals.
    """
    import keras
    from keras import layers

    def norm_relu(x: Any, name: str) -> Any:
        return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x))

    motion = keras.Input((STEPS, 1, SIGNALS), name="motion")
    x = layers.Conv2D(24, (5, 1), (2, 1), padding="same", use_bias=False, name="stem")(motion)
    x = norm_relu(x, "stem")
    for number, filters in enumerate((32, 48), start=1):
        x = layers.DepthwiseConv2D((5, 1), padding="same", use_bias=False, name=f"block{number}_depthwise")(x)
        x = norm_relu(x, f"block{number}_depthwise")
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"block{number}_pointwise")(x)
        x = norm_relu(x, f"block{number}_pointwise")
        x = layers.MaxPooling2D((2, 1), name=f"block{number}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(motion, layers.Dense(len(CLASSES), name="logits")(x), name="motions")


def augment(x: Any, y: Any) -> tuple[Any, Any]:
    """Returns recordings that start at another moment, a little stronger or weaker, with a little noise."""
    import tensorflow as tf

    count = tf.shape(x)[0]
    x = tf.roll(x, tf.random.uniform([], -LARGEST_SHIFT, LARGEST_SHIFT + 1, tf.int32), axis=1)
    x *= tf.random.uniform([count, 1, 1, SIGNALS], 1 - TURN, 1 + TURN)
    return x + tf.random.normal(tf.shape(x), stddev=NOISE), y


def answers(file: Path, x: np.ndarray, y: np.ndarray) -> list[str]:
    """Returns one line for a recording of each class."""
    from tfcompress.tflite import open_model

    chosen = [int(np.flatnonzero(y == label)[0]) for label in range(len(CLASSES))]
    logits = next(iter(open_model(file).run(x[chosen]).values()))
    said = [CLASSES[i] for i in logits.argmax(axis=1)]
    return [f"The int8 model says {said[i]} to a recording of {CLASSES[y[chosen[i]]]}." for i in range(len(chosen))]


def make_task(folder: Path) -> flow.Task:
    """Returns what is learned from the recordings in a folder."""
    x, y = load(folder, "TRAIN")
    test = load(folder, "TEST")
    return flow.Task(
        title="tfcompress example: motions on a microcontroller",
        build=build,
        x=x,
        y=y,
        test=test,
        augment=augment,
        target="micro",
        claims=CLAIMS,
        settings={"metadata": tfc.Metadata("motions", labels=CLASSES)},
        answer=lambda file, folder: answers(file, *test),
    )


def run(values: flags.FlagValues) -> None:
    """Trains and measures as the flags say."""
    flow.run_flags(make_task(values.data), RECIPE, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    return flow.command(
        run,
        flow.define_flags(name="motions", data="motions"),
        list(sys.argv[1:] if arguments is None else arguments),
        name="motions",
        summary="train, compress, convert and measure a classifier of movements",
    )


if __name__ == "__main__":
    sys.exit(main())

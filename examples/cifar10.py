"""What is in the picture? Ten classes learned from 2000 pictures of CIFAR-10, from scratch.

Writes ``answers.png`` too: test pictures, what the int8 model says to them, and what they are.
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

ORIGIN = (
    "2000 + 500 pictures of CIFAR-10 (Krizhevsky 2009, www.cs.toronto.edu/~kriz/cifar.html) as uint8 arrays x_train, "
    "y_train, x_test, y_test of a .npz file"
)
ARCHIVE = "cifar10_subset.npz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BRIGHTEST = 255
LARGEST_SHIFT = 4  # pixels
HOLE = 8  # pixels, the side of the square that is cut out
CONTRAST = 0.2
SHOWN = 20
RECIPE = flow.Recipe(epochs=45, compressed_epochs=9, teacher_epochs=45, batch_size=50, learning_rate=4e-3, sparsity=0.5)

CLAIMS = {
    "float answers at least 60 %": lambda summary: summary["top1"]["float32"]["mean"] >= 0.60,
    "int8 loses at most 1 point": lambda summary: outcome.most_lost(summary["top1"]) <= 0.01,
}


def load(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns pictures (n, 32, 32, 3) float32 in [0, 1] and classes (n,) int64, to learn from and to test on."""
    with np.load(flow.find_data(folder, ARCHIVE, origin=ORIGIN)) as file:
        pictures = [file[f"x_{part}"].astype(np.float32) / BRIGHTEST for part in ("train", "test")]
        labels = [file[f"y_{part}"].astype(np.int64).ravel() for part in ("train", "test")]
    return pictures[0], labels[0], pictures[1], labels[1]


def build(width: int) -> Any:
    """Returns the untrained network, (n, 32, 32, 3) to (n, 10) logits: six convolutions, two residuals."""
    import keras
    from keras import layers

    def convolution(x: Any, filters: int, name: str, kernel: int = 3, stride: int = 1) -> Any:
        x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
        # 40 steps an epoch: with Keras's default momentum of 0.99 validation would lag behind for epochs.
        return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x))

    image = keras.Input((32, 32, 3), name="image")
    x = convolution(image, width, "stem", kernel=5, stride=2)
    for number, filters in enumerate((2 * width, 4 * width), start=1):
        x = convolution(x, filters, f"block{number}_wide")
        x = layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
        x = layers.Add(name=f"block{number}_residual")([x, convolution(x, filters, f"block{number}_deep")])
    x = convolution(x, 4 * width, "head")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    return keras.Model(image, layers.Dense(len(CLASSES), name="logits")(x), name="cifar10")


def augment(x: Any, y: Any) -> tuple[Any, Any]:
    """Returns pictures mirrored, moved, of another contrast, with a square cut out.

    Source of the square: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017,
    https://arxiv.org/abs/1708.04552.
    """
    import tensorflow as tf

    count, size = tf.shape(x)[0], x.shape[1]
    x = tf.where(tf.random.uniform([count, 1, 1, 1]) < 0.5, x[:, :, ::-1], x)
    # Each picture is read at its own place of a larger one, by rows and, turned over, by columns.
    x = tf.pad(x, [[0, 0], [LARGEST_SHIFT] * 2, [LARGEST_SHIFT] * 2, [0, 0]], "REFLECT")
    for _ in range(2):
        first = tf.random.uniform([count, 1], 0, 2 * LARGEST_SHIFT + 1, tf.int32)
        x = tf.transpose(tf.gather(x, first + tf.range(size), axis=1, batch_dims=1), [0, 2, 1, 3])
    x = tf.clip_by_value((x - 0.5) * tf.random.uniform([count, 1, 1, 1], 1 - CONTRAST, 1 + CONTRAST) + 0.5, 0, 1)
    row, column = (tf.random.uniform([count, 1, 1, 1], -HOLE // 2, size, tf.int32) for _ in range(2))
    rows, columns = tf.reshape(tf.range(size), [1, -1, 1, 1]), tf.reshape(tf.range(size), [1, 1, -1, 1])
    is_cut = (rows >= row) & (rows < row + HOLE) & (columns >= column) & (columns < column + HOLE)
    return tf.where(is_cut, 0.5, x), y


def answers(file: Path, folder: Path, x: np.ndarray, y: np.ndarray) -> list[str]:
    """Returns what the int8 model says to the first test pictures, and draws them."""
    from tfcompress.tflite import open_model

    said = next(iter(open_model(file).run(x[:SHOWN]).values())).argmax(axis=1)
    outcome.draw_answers(folder / "answers.png", x[:SHOWN], said, y[:SHOWN], CLASSES)
    right = int(np.count_nonzero(said == y[:SHOWN]))
    return [f"answers.png: {right} of {SHOWN} test pictures named rightly by the int8 model"]


def make_task(folder: Path) -> flow.Task:
    """Returns what is learned from the pictures in a folder."""
    x, y, x_test, y_test = load(folder)
    return flow.Task(
        title="tfcompress example: CIFAR-10 from 2000 pictures",
        build=lambda: build(24),
        teacher=lambda: build(48),
        x=x,
        y=y,
        test=(x_test, y_test),
        augment=augment,
        settings={"metadata": tfc.Metadata("cifar10", labels=CLASSES)},
        answer=lambda file, folder: answers(file, folder, x_test, y_test),
        claims=CLAIMS,
    )


def run(values: flags.FlagValues) -> None:
    """Trains and measures as the flags say."""
    flow.run_flags(make_task(values.data), RECIPE, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    return flow.command(
        run,
        flow.define_flags(name="cifar10", data="cifar10"),
        list(sys.argv[1:] if arguments is None else arguments),
        name="cifar10",
        summary="train, compress, convert and measure a network on small pictures",
    )


if __name__ == "__main__":
    sys.exit(main())

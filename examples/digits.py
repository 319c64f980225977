"""Which digit is it? The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings along: no data to fetch.

The network of the demo, distilled from a larger one. Writes ``answers.png`` too: test pictures and what the int8 model says.
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
from tfcompress.data import Digits, load_digits

SHOWN = 20
CLASSES = tuple(map(str, range(10)))
RECIPE = flow.Recipe(epochs=20, compressed_epochs=18, teacher_epochs=20, batch_size=64, sparsity=0.5)
CLAIMS = {
    "float answers at least 97 %": lambda summary: summary["top1"]["float32"]["mean"] >= 0.97,
    "int8 loses at most 1 point": lambda summary: outcome.most_lost(summary["top1"]) <= 0.01,
}


def build_teacher() -> Any:
    """Returns the larger network, untrained, (n, 8, 8, 1) to (n, 10) logits: three full convolutions."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 1), name="image")
    x = image
    for filters in (64, 64, 128):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(len(CLASSES), name="logits")(x), name="teacher")


def build() -> Any:
    """Returns the demo's network, untrained, (n, 8, 8, 1) to (n, 10) logits."""
    from tfcompress.demo import build_model

    return build_model(seed=int(np.random.randint(1 << 31)))  # of the seed that flow has set


def answers(file: Path, folder: Path, data: Digits) -> list[str]:
    """Returns what the int8 model says to the first test pictures, and draws them."""
    from tfcompress.tflite import open_model

    said = next(iter(open_model(file).run(data.x_test[:SHOWN]).values())).argmax(axis=1)
    outcome.draw_answers(folder / "answers.png", 1 - data.x_test[:SHOWN], said, data.y_test[:SHOWN], CLASSES)
    return [
        f"answers.png; the int8 model reads: {' '.join(map(str, said))}",
        f"{'written is:':>34} {' '.join(map(str, data.y_test[:SHOWN]))}",
    ]


def make_task() -> flow.Task:
    """Returns what is learned from the digits."""
    data = load_digits()
    return flow.Task(
        title="tfcompress example: handwritten digits",
        build=build,
        teacher=build_teacher,
        x=data.x_train,
        y=data.y_train,
        test=(data.x_test, data.y_test),
        settings={"metadata": tfc.Metadata("digits", labels=CLASSES)},
        answer=lambda file, folder: answers(file, folder, data),
        claims=CLAIMS,
    )


def run(values: flags.FlagValues) -> None:
    """Trains and measures as the flags say."""
    flow.run_flags(make_task(), RECIPE, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    return flow.command(
        run,
        flow.define_flags(name="digits", data=None),
        list(sys.argv[1:] if arguments is None else arguments),
        name="digits",
        summary="train, distil, compress, convert and measure a network on handwritten digits",
    )


if __name__ == "__main__":
    sys.exit(main())

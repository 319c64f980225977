"""Which digit is spoken? Log-mel features by ``tfcompress.data.log_mel``, a DS-CNN, compressed to full integers.

The front end stays outside of the model, see there why: the same NumPy file computes the features here and on a device.
"""

import io
import sys
import wave
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flow
import numpy as np
import outcome
from absl import flags

import tfcompress as tfc
from tfcompress.data import LogMel
from tfcompress.errors import DataError

ORIGIN = (
    "1000 recordings of the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0), "
    "packed as spoken_digits.zip"
)
ARCHIVE = "spoken_digits.zip"
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_INDICES = range(5)  # the data set's official test split: recordings 0 to 4 of each digit and speaker
FRONT_END = LogMel()
SAMPLES = FRONT_END.rate  # 1 s: longer recordings lose their end, shorter ones are followed by silence
LARGEST_SHIFT = 6  # frames of 20 ms
LOUDNESS = 1.0  # natural logarithm of a power: up to 2.7 times stronger or weaker
LONGEST_GAP, WIDEST_GAP = 8, 4  # frames and bands
RECIPE = flow.Recipe(epochs=30, compressed_epochs=15, batch_size=32, sparsity=0.5)
CLAIMS = {
    "float answers at least 90 %": lambda summary: summary["top1"]["float32"]["mean"] >= 0.90,
    "int8 loses at most 1 point": lambda summary: outcome.most_lost(summary["top1"]) <= 0.01,
}


class Sounds(NamedTuple):
    """Features (n, 49, 20, 1) float32 and digits (n,) int64, to learn from and to test on."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def read_wave(content: bytes) -> np.ndarray:
    """Returns the samples of a wav file, int16.

    Raises:
        DataError: it is not mono, 16 bits, at the front end's rate.
    """
    with wave.open(io.BytesIO(content)) as file:
        found = file.getnchannels(), file.getsampwidth(), file.getframerate()
        if found != (1, 2, FRONT_END.rate):
            raise DataError(f"A recording must be mono, 16 bits, {FRONT_END.rate} Hz. Received: {found}. Resample it.")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def features(sound: np.ndarray) -> np.ndarray:
    """Returns the features of one recording, (49, 20, 1) float32: what the device does, too."""
    padded = np.zeros(SAMPLES, np.int16)
    padded[: len(sound)] = sound[:SAMPLES]
    return FRONT_END(padded)[..., None]


def load(folder: Path) -> Sounds:
    """Returns all recordings; the names say digit, speaker and index: 7_jackson_32.wav."""
    x, y, is_test = [], [], []
    with zipfile.ZipFile(flow.find_data(folder, ARCHIVE, origin=ORIGIN)) as archive:
        for name in sorted(archive.namelist()):
            digit, _, index = Path(name).stem.split("_")
            x.append(features(read_wave(archive.read(name))))
            y.append(int(digit))
            is_test.append(int(index) in TEST_INDICES)
    features_of_all, labels, test = np.stack(x), np.asarray(y, np.int64), np.asarray(is_test)
    return Sounds(features_of_all[~test], labels[~test], features_of_all[test], labels[test])


def build(size: str) -> Any:
    """Returns the untrained DS-CNN, (n, 49, 20, 1) to (n, 10) logits."""
    from tfcompress.zoo.ds_cnn import ds_cnn

    shape = (FRONT_END.frames(SAMPLES), FRONT_END.bands, 1)
    return ds_cnn(input_shape=shape, classes=len(CLASSES), size=size, momentum=0.9, name="spoken_digits")


def augment(x: Any, y: Any) -> tuple[Any, Any]:
    """Returns features as of recordings that start later or earlier, louder or softer, with gaps in time and frequency.

    Source of the gaps: Park et al., "SpecAugment", 2019, https://arxiv.org/abs/1904.08779.
    """
    import tensorflow as tf

    silence = float(np.log(FRONT_END.floor))
    count, frames, bands = tf.shape(x)[0], x.shape[1], x.shape[2]
    shift = tf.random.uniform([], -LARGEST_SHIFT, LARGEST_SHIFT + 1, tf.int32)
    x = tf.roll(x, shift, axis=1)
    x = tf.maximum(x + tf.random.uniform([count, 1, 1, 1], -LOUDNESS, LOUDNESS), silence)
    for size, longest, shape in ((frames, LONGEST_GAP, [1, -1, 1, 1]), (bands, WIDEST_GAP, [1, 1, -1, 1])):
        first = tf.random.uniform([count, 1, 1, 1], 0, size, tf.int32)
        length = tf.random.uniform([count, 1, 1, 1], 0, longest + 1, tf.int32)
        place = tf.reshape(tf.range(size), shape)
        x = tf.where((place >= first) & (place < first + length), silence, x)
    return x, y


def answers(file: Path, folder: Path, sounds: Sounds) -> list[str]:
    """Returns what the int8 model hears in the first test recording of each digit; writes the bundle."""
    import tfcompress as tfc
    from tfcompress.tflite import open_model

    model = open_model(file)
    tfc.bundle(
        file,
        folder / "bundle",
        source="spoken_digits.keras",
        target="cpu-int8",
        labels=CLASSES,
        samples={model.inputs[0].name: sounds.x_test},
        front_end=FRONT_END,
        overwrite=True,
    )
    chosen = [int(np.flatnonzero(sounds.y_test == digit)[0]) for digit in range(len(CLASSES))]
    logits = next(iter(model.run(sounds.x_test[chosen]).values()))
    said = " ".join(CLASSES[i] for i in logits.argmax(axis=1))
    return ["Spoken are the digits from zero to nine; the int8 model hears:", said]


def make_task(folder: Path) -> flow.Task:
    """Returns what is learned from the recordings in a folder."""
    sounds = load(folder)
    return flow.Task(
        title="tfcompress example: spoken digits",
        build=lambda: build("small"),
        teacher=lambda: build("medium"),
        x=sounds.x,
        y=sounds.y,
        test=(sounds.x_test, sounds.y_test),
        augment=augment,
        settings={"metadata": tfc.Metadata("spoken_digits", labels=CLASSES)},
        answer=lambda file, folder: answers(file, folder, sounds),
        claims=CLAIMS,
    )


def run(values: flags.FlagValues) -> None:
    """Trains and measures as the flags say."""
    flow.run_flags(make_task(values.data), RECIPE, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    return flow.command(
        run,
        flow.define_flags(name="spoken_digits", data="spoken_digits"),
        list(sys.argv[1:] if arguments is None else arguments),
        name="spoken_digits",
        summary="train, compress, convert and measure a DS-CNN on spoken digits",
    )


if __name__ == "__main__":
    sys.exit(main())

"""The same network from PyTorch and from Keras: operators, size and time of the two int8 files.

``python benchmarks/pytorch.py --size=224 --json=pytorch.json``; needs the extra ``[torch]``. ResNet-18 and ShuffleNet V2 are
written once with torch.nn (``tests/torch_models.py``) and once with Keras (here, and in the zoo), with random weights and
the same number of parameters. Both become ``cpu-int8`` files with channels last, and the two run in turns in one process: the
ratio is the median of the ratios pair by pair, with its 95 % interval.
"""

import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.system import write_atomically

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 32
CLASSES = 1000


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("size", 224, "height and width of the pictures", lower_bound=32, flag_values=values)
    flags.DEFINE_integer("runs", 100, "timed runs of each file", lower_bound=2, flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    return values


def resnet18_in_keras(size: int) -> Any:
    """Returns ResNet-18 with the padding of torchvision's, (n, size, size, 3) to 1000 logits."""
    import keras
    from keras import layers

    def conv(x: Any, filters: int, kernel: int, strides: int, *, activation: bool = True) -> Any:
        x = layers.ZeroPadding2D(kernel // 2)(x) if kernel > 1 else x
        x = layers.Conv2D(filters, kernel, strides=strides, use_bias=False)(x)
        x = layers.BatchNormalization(epsilon=1e-5)(x)
        return layers.ReLU()(x) if activation else x

    image = keras.Input((size, size, 3), name="image")
    x = layers.MaxPooling2D(3, strides=2, padding="same")(conv(image, 64, 7, 2))
    for stage in range(4):
        for unit in range(2):
            filters, strides = 64 << stage, 2 if stage and not unit else 1
            y = conv(conv(x, filters, 3, strides), filters, 3, 1, activation=False)
            shortcut = conv(x, filters, 1, strides, activation=False) if strides == 2 else x
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    return keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)), name="resnet18")


def _pairs(size: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    sys.path.insert(0, str(ROOT / "tests"))
    import torch_models

    from tfcompress.zoo.shufflenet_v2 import shufflenet_v2

    shape = (size, size, 3)
    return {
        "ResNet-18": (lambda: torch_models.ResNet18(CLASSES), lambda: resnet18_in_keras(size)),
        "ShuffleNet V2 x0.5": (
            lambda: torch_models.ShuffleNetV2(CLASSES, (24, 48, 96, 192, 1024)),
            lambda: shufflenet_v2(input_shape=shape, width=0.5),
        ),
        "ShuffleNet V2 x1.0": (
            lambda: torch_models.ShuffleNetV2(CLASSES, (24, 116, 232, 464, 1024)),
            lambda: shufflenet_v2(input_shape=shape, width=1.0),
        ),
    }


def compare(name: str, from_torch: Any, from_keras: Any, size: int, runs: int) -> dict[str, Any]:
    """Returns the figures of one network's two files."""
    import numpy as np

    import tfcompress as tfc

    parameters = (
        sum(p.numel() for p in from_torch.parameters()),
        sum(math.prod(w.shape) for w in from_keras.trainable_weights),
    )
    if parameters[0] != parameters[1]:
        raise ValueError(f"Both networks must be the same. Received: {parameters} parameters for {name}.")
    pictures = np.random.default_rng(0).uniform(-1, 1, (SAMPLES, size, size, 3)).astype(np.float32)
    shapes = {"image": (None, 3, size, size)}
    options: dict[str, Any] = {"target": "cpu-int8", "representative_data": pictures}
    files = {
        "pytorch": tfc.convert(from_torch.eval(), source=tfc.SourceOptions(input_shapes=shapes, nhwc=True), **options),
        "keras": tfc.convert(from_keras, **options),
    }
    with tempfile.TemporaryDirectory() as folder:
        for side, file in files.items():
            file.save(Path(folder) / f"{side}.tflite")
        paths = [str(Path(folder) / f"{side}.tflite") for side in ("keras", "pytorch")]
        keras_record, torch_record = tfc.measure(paths, latency=tfc.LatencyOptions(interleave=True, runs=runs))
    return {
        "network": name,
        "parameters": parameters[0],
        "ratio": dataclasses.asdict(torch_record.ratio),
        **{
            side: {
                "ops": sum(file.ops.values()),
                "transposes": file.ops.get("TRANSPOSE", 0),
                "size_bytes": len(file.tflite),
                "median_ms": record.latency.median_ms,
            }
            for (side, file), record in zip(files.items(), (torch_record, keras_record), strict=True)
        },
    }


def main(arguments: list[str]) -> int:
    """Runs the comparison and returns the exit code."""
    values = _flags()
    try:
        if parse(values, arguments, required=()):
            print(help_text(values, program="pytorch.py", summary=(__doc__ or "").splitlines()[0], example=""))
            return 0
    except UsageError as error:
        print(f"pytorch.py: {error}", file=sys.stderr)
        return 2
    figures = []
    print(
        f"{'int8, ' + str(values.size) + ' pixels':22} {'from':8} {'ops':>4} {'TRANSPOSE':>9} {'kB':>7} {'median ms':>9}"
    )
    for name, (from_torch, from_keras) in _pairs(values.size).items():
        row = compare(name, from_torch(), from_keras(), values.size, values.runs)
        figures.append(row)
        for side in ("pytorch", "keras"):
            one = row[side]
            sizes = f"{one['size_bytes'] / 1000:7.0f} {one['median_ms']:9.2f}"
            print(f"{name:22} {side:8} {one['ops']:4} {one['transposes']:9} {sizes}")
        ratio = row["ratio"]
        print(f"{'':22} PyTorch / Keras {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})", flush=True)
    if values.json:
        text = json.dumps(figures, indent=2) + "\n"
        if values.json == "-":
            print(text)
        else:
            write_atomically(values.json, text, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

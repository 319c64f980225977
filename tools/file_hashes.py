"""Did a refactoring leave every file byte-equal? Hashes what the package makes, to compare with an older checkout.

    python tools/file_hashes.py --output=hashes.json     before
    python tools/file_hashes.py --compare=hashes.json    after: exit 1 where a file differs or is missing

Everything is seeded, deterministic and on one thread. Hashes of trained models belong to one kind of CPU and one version of
TensorFlow: make both runs on the same machine. A refused combination is recorded as its error's line. Accuracy and speed
are not looked at. ``--root`` names another checkout, so that one copy of this script serves both.

Only ``options``, ``trained_otherwise`` and ``torch_module`` use calls whose signature may change: adapt those, never a name.
"""

import os

os.environ |= {  # read once, when TensorFlow and the BLAS of NumPy are loaded; the demo's process inherits them
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}
os.environ.pop("TF_USE_LEGACY_KERAS", None)

import argparse
import gc
import hashlib
import importlib.util
import json
import logging
import re
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# What the zoo's table says; written out, so that a changed table shows.
PICTURE: dict[str, Any] = {"input_shape": (32, 32, 3), "classes": 10}
ZOO: dict[str, dict[str, Any]] = {
    "mobilenet_v1": {**PICTURE, "width": 0.25},
    "mobilenet_v2": {**PICTURE, "width": 0.35},
    "mobilenet_v3_small": {**PICTURE, "width": 0.5},
    "mobilenet_v3_large": {**PICTURE, "width": 0.5},
    "mobilenet_v3_small_minimal": {**PICTURE, "width": 0.5},
    "mobilenet_v3_large_minimal": {**PICTURE, "width": 0.5},
    "shufflenet_v1": {**PICTURE, "width": 0.5, "units": (2, 2)},
    "shufflenet_v2": {**PICTURE, "width": 0.5, "units": (2, 2)},
    "resnet_8": PICTURE,
    "resnet_20": PICTURE,
    "resnet_56": {**PICTURE, "depth": 14},
    "squeezenet": {**PICTURE, "width": 0.5},
    "ssdlite": {"input_shape": (64, 64, 3), "classes": 3, "width": 0.5},
    "ds_cnn": {},
    "autoencoder": {},
    "text_cnn": {},
    "text_attention": {},
    "text_lstm": {"length": 8},
    "next_character": {},
}
FLOAT_TARGETS = ("float32", "float16", "dynamic", "gpu-fp16")
INTEGER_TARGETS = (
    "cpu-int8",
    "cpu-int8-float-io",
    "cpu-uint8-io",
    "cpu-int16x8",
    "cpu-int4",
    "micro",
    "edge-tpu",
    "ethos-u",
)
TARGETS = (*FLOAT_TARGETS, *INTEGER_TARGETS)
COUNT = 16  # samples of a model of the zoo
DIGITS = 512  # pictures that the small digits model is trained on
EPOCHS = 6
STEPS = EPOCHS * DIGITS // 64

FAILED = "failed"  # in the name of a group whose model cannot be made

Job = Callable[[], bytes]
"""Makes the bytes of one file."""
Jobs = Iterator[tuple[str, Job]]
"""(name, job) of a group, made lazily: a model is built when its group is reached."""


# ---------------------------------------------------------------------------------------------------------------------
# Adapt to changed signatures here, and only here. Names stay: they are the keys of the baseline.
# ---------------------------------------------------------------------------------------------------------------------


def options(model: Any, data: np.ndarray, target: str = "cpu-int8") -> dict[str, dict[str, Any]]:
    """Returns, by name, further arguments of ``convert`` for the small digits model; target and data may be replaced."""
    import tfcompress as tfc

    observers = ("min_max", "moving_average", "percentile", "mean_squared_error", "entropy")
    repairs = ("auto", "equalization", "clipping", "rounding", "bias")
    measured = tfc.convert(model, target=target, representative_data=data, calibration="percentile").calibration
    return {
        **{f"observer={name}": {"calibration": name} for name in observers},
        "observer=Percentile(99)": {"calibration": tfc.observers.Percentile(percentile=99.0)},
        "observer=MovingAverage(0.5)": {"calibration": tfc.observers.MovingAverage(momentum=0.5)},
        "observer=entropy,int4": {"calibration": "entropy", "target": "cpu-int4"},
        "overrides": {
            "calibration": tfc.CalibrationOptions(overrides=[("*stem*", "moving_average"), ("*logits*", "entropy")])
        },
        "calibration": {"calibration": measured, "representative_data": None},
        **{f"repair={name}": {"repair": name} for name in repairs},
        "repair=auto,micro": {"repair": "auto", "target": "micro"},
        "rules": {"rules": [("stem*", "*", "int16x8"), ("pointwise*", "*", "int4")]},
        "rules=float": {"rules": [("logits*", "*", None)]},
        "backend": {"backend": "ai-edge-quantizer"},
        "input_shapes": {"source": tfc.SourceOptions(input_shapes={"image": (4, 8, 8, 1)})},
        "metadata": {"metadata": tfc.Metadata("other", "2", [str(digit) for digit in range(10)])},
    }


def detections(shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """Returns the arguments of ``convert`` that choose the boxes of a small ``ssdlite`` inside the file."""
    import tfcompress as tfc

    return tfc.zoo.find("ssdlite").settings(input_shape=shape, classes=classes)


def trained_otherwise(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Returns, by name, what gives a small digits model that was trained with something besides plain callbacks."""
    import keras

    import tfcompress as tfc

    def without_channels() -> Any:
        callbacks = [tfc.L1Penalty(1e-3), tfc.ChannelPruning(0.5, frequency=2, multiple_of=4)]
        return tfc.remove_channels(fitted(callbacks), multiple_of=4)

    def distilled() -> Any:
        teacher, student = fitted([]), digits_model(seed=1)
        distiller = tfc.distill(student, teacher, temperature=2.0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.Adam(3e-3), loss)
        distiller.fit(x, y, batch_size=64, epochs=2, verbose=0, callbacks=[tfc.QuantizationAwareTraining()])
        return student

    def structured() -> Any:
        return fitted([tfc.MagnitudePruning(0.5, frequency=4, mask=tfc.masks.NofM(2, 4))])

    return {"penalty+channels": without_channels, "distill+qat": distilled, "pruning_2_of_4": structured}


def torch_module() -> tuple[Any, dict[str, Any]]:
    """Returns a small PyTorch module and the arguments of ``convert`` that it needs."""
    import torch

    import tfcompress as tfc

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 8 * 8, 4),
    )
    with torch.no_grad():
        module(torch.randn(32, 3, 16, 16))  # moves the statistics of BatchNorm
    return module.eval(), {"source": tfc.SourceOptions(input_shapes={"input": (1, 3, 16, 16)})}


# ---------------------------------------------------------------------------------------------------------------------
# Models and data
# ---------------------------------------------------------------------------------------------------------------------


def samples(model: Any) -> np.ndarray:
    """Returns smooth seeded pictures or features, by the model's input: (16, ...) float32 in [-1, 1], or int32 ids."""
    random, given = np.random.default_rng(0), model.inputs[0]
    shape = (COUNT, *given.shape[1:])
    if "int" in str(given.dtype):
        return random.integers(0, 20, shape).astype(given.dtype)
    values = random.uniform(-1, 1, shape)
    for axis in range(1, values.ndim - 1):
        values = (values + np.roll(values, 1, axis) + np.roll(values, 2, axis)) / 2
    return np.clip(values, -1, 1).astype(np.float32)


def settle(model: Any, x: np.ndarray) -> None:
    """Gives biases, betas and gammas values of their own and BatchNorm the statistics of ``x``."""
    import keras

    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if weight.name in ("bias", "beta"):
            weight.assign(weight.numpy() + random.normal(0, 0.1, weight.shape))
        elif weight.name == "gamma":
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(x, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def fresh(seed: int = 0) -> None:
    """Forgets former models, whose number is in the names of new ones, and seeds every generator."""
    import keras

    keras.backend.clear_session()
    gc.collect()
    keras.utils.set_random_seed(seed)


def zoo_model(name: str) -> tuple[Any, np.ndarray]:
    """Returns a small variant of a model of the zoo, and samples for it."""
    import tfcompress as tfc

    fresh()
    model = tfc.zoo.build(name, **ZOO[name])
    x = samples(model)
    settle(model, x)
    return model, x


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures (512, 8, 8, 1) float32 in [0, 1] and labels (512,) of scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    return (bundled.images[:DIGITS, ..., None] / 16).astype(np.float32), bundled.target[:DIGITS].astype(np.int64)


def digits_model(seed: int = 0) -> Any:
    """Returns an untrained network of one of each fused chain: (n, 8, 8, 1) to (n, 10) logits."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(momentum=0.8, name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.BatchNormalization(momentum=0.8, name="depthwise_norm")(y)
    y = layers.ReLU(6.0, name="depthwise_relu")(y)
    y = layers.Conv2D(16, 1, activation="relu", name="pointwise")(y)
    x = layers.Add(name="residual")([x, y])
    x = layers.Conv2D(24, 3, activation="relu", name="widened")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(24, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(10, name="logits")(x), name="figures")


def untrained() -> tuple[Any, np.ndarray]:
    """Returns the small digits model with BatchNorm statistics of real pictures, and 64 of them."""
    fresh()
    model, x = digits_model(), digits()[0][:64]
    settle(model, x)
    return model, x


def fitted(callbacks: list[Any]) -> Any:
    """Returns the small digits model after a short seeded fit."""
    import keras

    fresh()
    model, (x, y) = digits_model(), digits()
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=64, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    return model


def ramp(step: int) -> float:
    """Returns the sparsity at an optimizer step: up to 0.75 in the first half of the fit."""
    return 0.75 * min(1.0, step / (STEPS // 2))


# ---------------------------------------------------------------------------------------------------------------------
# Groups of files
# ---------------------------------------------------------------------------------------------------------------------


def converting(model: Any, target: str, data: Any, **further: Any) -> Job:
    """Returns the job that converts a model; float targets get no data."""
    import tfcompress as tfc

    given = {"target": target, "representative_data": data if target in INTEGER_TARGETS else None, **further}
    return lambda: tfc.convert(model, **given).tflite


def zoo_group(name: str, folder: Path) -> Jobs:
    """Yields a model of the zoo for every target; the detector once more with its boxes chosen inside the file.

    Beyond cpu-int8, integer targets start from the float32 file: lowering deep models again takes most of the time.
    """
    model, x = zoo_model(name)
    path = folder / f"{name}.tflite"
    path.write_bytes(converting(model, "float32", None)())
    for target in TARGETS:
        is_direct = target in FLOAT_TARGETS or target == "cpu-int8"
        yield target, converting(model if is_direct else path, target, x)
    if name == "ssdlite":
        chosen = detections(ZOO[name]["input_shape"], ZOO[name]["classes"])
        for target in ("float32", "cpu-int8", "edge-tpu"):
            yield f"{target},detections", converting(model, target, x, **chosen)


def options_group() -> Jobs:
    """Yields the digits model with each further argument of ``convert``."""
    model, x = fitted([]), digits()[0][:64]
    for name, further in options(model, x).items():
        yield name, converting(model, further.pop("target", "cpu-int8"), x, **further)


def sources_group(folder: Path) -> Jobs:
    """Yields the digits model from each kind of file that a model may come in."""
    import tfcompress as tfc

    model, x = untrained()
    model.save(folder / "saved.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that HDF5 is a legacy format
        model.save(folder / "legacy.h5")
    model.export(folder / "exported", verbose=False)
    (folder / "float.tflite").write_bytes(tfc.convert(model, target="float32").tflite)
    for path in ("saved.keras", "legacy.h5", "exported", "float.tflite"):
        for target in ("float32", "float16", "dynamic", "cpu-int8", "cpu-int16x8", "micro"):
            yield f"{path}/{target}", converting(folder / path, target, x)


def torch_group() -> Jobs:
    """Yields a PyTorch module for the targets that make its file in different ways."""
    module, further = torch_module()
    data = np.random.default_rng(0).normal(size=(32, 3, 16, 16)).astype(np.float32)
    for target in ("float32", "float16", "dynamic", "cpu-int8", "cpu-int16x8"):
        yield target, converting(module, target, data, **further)


def trained_group(folder: Path) -> Jobs:
    """Yields digits models after training with the callbacks."""
    import tfcompress as tfc

    x, y = digits()
    data = x[:64]

    def pruning() -> Any:
        return tfc.MagnitudePruning(ramp, frequency=4)

    model = fitted([pruning(), tfc.QuantizationAwareTraining(begin_epoch=2)])
    model.save(folder / "trained.keras")
    for target in TARGETS:
        yield f"pruning+qat/{target}", converting(model, target, data)
    yield "pruning+qat/without data", converting(model, "cpu-int8", None)
    yield "pruning+qat/saved", converting(folder / "trained.keras", "cpu-int8", None)
    yield "pruning+qat/trained.keras", partial(archive, folder / "trained.keras")

    def qat(**further: Any) -> Any:
        return tfc.QuantizationAwareTraining(**further)

    def learned() -> Any:
        return qat(activation_ranges="learned", weight_ranges="learned")

    def frozen() -> Any:
        return qat(freeze_epoch=3, freeze_batch_norm_epoch=4, representative_data=data)

    ways: dict[str, Callable[[], Any]] = {
        "pruning_global/cpu-int8": lambda: fitted([tfc.MagnitudePruning(0.5, frequency=4, scope="global")]),
        "qat_learned/cpu-int8": lambda: fitted([learned()]),
        "qat_frozen/cpu-uint8-io": lambda: fitted([frozen()]),
        "qat_int16x8/cpu-int16x8": lambda: fitted([qat(target="cpu-int16x8")]),
        "qat_int4/cpu-int4": lambda: fitted([qat(target="cpu-int4")]),
        "qat_micro/micro": lambda: fitted([qat(target="micro")]),
        "pruning+clustering+qat/cpu-int8": lambda: fitted(
            [pruning(), tfc.WeightClustering(8, begin_epoch=4), qat(begin_epoch=2)]
        ),
        **{f"{name}/cpu-int8": train for name, train in trained_otherwise(x, y).items()},
    }
    for name, train in ways.items():
        yield name, partial(after_training, train, name.rpartition("/")[2], data)


def after_training(train: Callable[[], Any], target: str, data: np.ndarray) -> bytes:
    """Trains a model and returns its file."""
    return converting(train(), target, data)()


def archive(path: Path) -> bytes:
    """Returns the members of a ``.keras`` file one after the other, without the time of day and addresses of objects."""
    with zipfile.ZipFile(path) as members:
        read = {name: members.read(name) for name in sorted(members.namelist()) if name != "metadata.json"}
    read["config.json"] = re.sub(rb'"shared_object_id": \d+', b"", read["config.json"])
    return b"".join(name.encode() + content for name, content in read.items())


def start_demo(root: Path, folder: Path) -> subprocess.Popen:
    """Starts the demo in a process of its own."""
    command = [sys.executable, "-m", "tfcompress.demo", f"--output={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=root, env=environment, **pipes)


def demo_group(process: subprocess.Popen, folder: Path) -> Jobs:
    """Yields the demo's files, and of its record what no clock decides; the report shows times."""
    said = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"The demo must exit with 0. Received: {process.returncode}. It said: {said[-500:]}")
    for path in sorted(folder.glob("*.tflite")):
        yield path.name, path.read_bytes
    yield "pruned_qat.keras", partial(archive, folder / "pruned_qat.keras")
    record = json.loads((folder / "demo.json").read_text())
    yield "demo.json:conversions", lambda: json.dumps(record["conversions"], sort_keys=True).encode()
    scores = [(row["model_sha256"], row["accuracy"]) for row in record["measurements"]]
    yield "demo.json:scores", lambda: json.dumps(scores).encode()


# ---------------------------------------------------------------------------------------------------------------------
# Running and comparing
# ---------------------------------------------------------------------------------------------------------------------


def error_line(error: Exception) -> str:
    """Returns an error as one line that is the same in every run: without addresses and folders.

    Examples:
        >>> error_line(ValueError("No such file: /tmp/x1/model.keras, says <object at 0x7f01>."))
        'ValueError: No such file: <path>, says <object at 0x>.'
    """
    text = re.sub(r"0x[0-9a-fA-F]+", "0x", " ".join(str(error).split()))
    return f"{type(error).__name__}: " + re.sub(r"(?<![\w.:/])/(?:[\w.+-]+/)+[\w.+-]*\w", "<path>", text)


def is_hash(value: str) -> bool:
    """Returns whether a record is that of a file, not of a refusal."""
    return re.fullmatch(r"[0-9a-f]{64}", value) is not None


def groups(folder: Path) -> dict[str, Callable[[], Jobs]]:
    """Returns what makes each group of files, by the beginning of their names; the demo runs beside the others."""
    found: dict[str, Callable[[], Jobs]] = {f"zoo/{name}": partial(zoo_group, name, folder) for name in ZOO}
    found["options"] = options_group
    found["sources"] = partial(sources_group, folder)
    found["trained"] = partial(trained_group, folder)
    if importlib.util.find_spec("litert_torch") is not None:
        found["torch"] = torch_group
    return found


def collect(root: Path, only: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Returns a SHA-256 or an error's line for each name that matches ``only``, sorted; only groups of ``wanted``, if any."""
    found: dict[str, str] = {}

    def is_chosen(group: str) -> bool:
        return any(name.startswith(f"{group}/") for name in wanted) if wanted else could_match(group, only)

    def run(group: str, jobs: Callable[[], Jobs]) -> None:
        begin, before = time.monotonic(), len(found)
        try:
            for rest, job in jobs():
                if not fnmatchcase(name := f"{group}/{rest}", only):
                    continue
                try:
                    found[name] = hashlib.sha256(job()).hexdigest()
                except Exception as error:  # noqa: BLE001 - recorded, and compared as files are
                    found[name] = error_line(error)
        except Exception as error:  # noqa: BLE001 - the model cannot be made: its files are missing
            found[f"{group}/{FAILED}"] = error_line(error)
        print(f"{group}: {len(found) - before} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 16 made-up samples do not look like what a model was trained on
        folder = Path(name)
        demo = start_demo(root, folder / "demo") if is_chosen("demo") else None
        try:
            for group, jobs in groups(folder).items():
                if is_chosen(group):
                    run(group, jobs)
            if demo is not None:
                run("demo", lambda: demo_group(demo, folder / "demo"))
        finally:
            if demo is not None and demo.poll() is None:
                demo.kill()
                demo.wait()
    return dict(sorted(found.items()))


def could_match(group: str, only: str) -> bool:
    """Returns whether a name of the group can match the pattern.

    Examples:
        >>> could_match("zoo/resnet_8", "zoo/*/micro"), could_match("demo", "zoo/*/micro")
        (True, False)
    """
    plain = re.split(r"[*?\[]", only, maxsplit=1)[0]
    return f"{group}/".startswith(plain) or plain.startswith(f"{group}/")


def compare(found: Mapping[str, str], wanted: Mapping[str, str]) -> int:
    """Prints each name that differs or is missing; returns 1 if there is one."""
    wrong = 0
    for name in sorted({*found, *wanted}):
        if name not in wanted:
            print(f"new      {name}" + ("" if is_hash(found[name]) else f": {found[name]}"))
        elif name not in found:
            print(f"missing  {name}")
            wrong += 1
        elif found[name] != wanted[name]:
            print(f"differs  {name}")
            if not (is_hash(found[name]) and is_hash(wanted[name])):
                print(f"         before: {wanted[name]}\n         now:    {found[name]}")
            wrong += 1
    files = sum(map(is_hash, wanted.values()))
    if wrong:
        print(f"{wrong} of {len(wanted)} differ or are missing")
        return 1
    print(f"{files} files, all byte-equal; {len(wanted) - files} refusals, all with the same message")
    return 0


def load_package(root: Path) -> None:
    """Imports the package of that checkout, and makes TensorFlow deterministic.

    Raises:
        ImportError: another copy of the package came first.
    """
    sys.path.insert(0, str(root))
    import tfcompress

    if not Path(tfcompress.__file__).is_relative_to(root):
        raise ImportError(f"tfcompress must come from {root}. Received: {tfcompress.__file__}. Unset PYTHONPATH.")
    print(f"tfcompress of {Path(tfcompress.__file__).parent}", file=sys.stderr)
    import tensorflow as tf

    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Hashes what the package makes, to prove that a refactoring changed none."
    )
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--output", type=Path, help="the JSON file of hashes to write")
    either.add_argument("--compare", type=Path, help="the JSON file to compare with")
    parser.add_argument("--only", default="*", help="shell pattern of names, such as 'zoo/resnet_8/*'; default: all")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parents[1], help="the checkout; default: this"
    )
    given = parser.parse_args()
    before = json.loads(given.compare.read_text()) if given.compare else {}
    wanted = {name: value for name, value in before.items() if fnmatchcase(name, given.only)}
    if given.compare and not wanted:
        parser.error(f"--only must match a name in {given.compare}. Received: {given.only}.")
    load_package(given.root.resolve())
    found = collect(given.root.resolve(), given.only, wanted)
    if given.compare:
        return compare(found, wanted)
    unfinished = given.output.with_name(f"{given.output.name}.part")
    unfinished.write_text(json.dumps(found, indent=1) + "\n")
    unfinished.replace(given.output)
    files = sum(map(is_hash, found.values()))
    print(f"{given.output}: {files} files, {len(found) - files} refusals")
    failures = [f"{name}: {value}" for name, value in found.items() if name.endswith(FAILED)]
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

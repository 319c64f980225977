"""Metadata: what is attached is read back, nothing else changes, and MediaPipe understands it."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pages
import pytest
from environments import python_with

import tfcompress as tfc
from tfcompress.errors import ModelError
from tfcompress.tflite import flatbuffer, metadata, metadata_flatbuffer
from tfcompress.tflite.interpreter import open_model
from tfcompress.tflite.metadata import Normalisation, attach, read

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits" / "digits_int8.tflite"
LABELS = [f"digit {i}" for i in range(10)]


@pytest.fixture(scope="module")
def digits():
    return DIGITS.read_bytes()


@pytest.fixture(scope="module")
def attached(digits):
    name = open_model(digits).inputs[0].name
    return attach(
        digits,
        name="digits",
        version="1.2",
        description="Which digit?",
        normalisation={name: Normalisation(127.5, 127.5)},
        labels=LABELS,
    )


def test_what_was_attached_is_read_back(digits, attached):
    before = open_model(digits)
    assert read(digits) is None
    assert read(attached) == metadata.StoredMetadata(
        "digits",
        "1.2",
        "Which digit?",
        (before.inputs[0].name,),
        (before.outputs[0].name,),
        {before.inputs[0].name: Normalisation((127.5,), (127.5,))},
        tuple(LABELS),
        "1.14.0",
    )


def test_answers_tensors_and_signatures_stay(digits, attached):
    before, after = open_model(digits), open_model(attached)
    assert [str(tensor) for tensor in after.inputs + after.outputs] == [
        str(tensor) for tensor in before.inputs + before.outputs
    ]
    values = np.random.default_rng(0).random((20, 8, 8, 1)).astype(np.float32)
    for name, answer in before.run(values).items():
        np.testing.assert_array_equal(after.run(values)[name], answer)
    old, new = flatbuffer.parse(digits), flatbuffer.parse(attached)
    assert [s.signatureKey for s in new.signatureDefs] == [s.signatureKey for s in old.signatureDefs]


def test_the_same_arguments_give_the_same_bytes(digits):
    first, second = (attach(digits, name="a", version="1", labels=LABELS) for _ in range(2))
    assert first == second


def test_attaching_again_replaces_and_adds_nothing(digits, attached):
    again = attach(attached, name="other", version="2", labels=LABELS[::-1], min_runtime_version="2.3.0")
    assert again == attach(again, name="other", version="2", labels=LABELS[::-1])
    found = read(again)
    assert (found.name, found.labels[0], found.normalisation) == ("other", "digit 9", {})
    assert found.min_runtime_version == "2.3.0"
    assert read(attach(attached, name="bare", version="1")).labels is None


def test_constants_are_aligned(attached):
    model = flatbuffer.parse(attached)
    base = np.frombuffer(attached, np.uint8).__array_interface__["data"][0]
    places = [
        buffer.data.__array_interface__["data"][0] - base
        for buffer in model.buffers
        if buffer.data is not None and len(buffer.data)
    ]
    assert len(places) > 10
    assert all(place % 16 == 0 for place in places)


def test_labels_lie_in_an_uncompressed_archive(attached, tmp_path):
    (tmp_path / "m.tflite").write_bytes(attached)
    with zipfile.ZipFile(tmp_path / "m.tflite") as archive:
        (info,) = archive.infolist()
        assert (info.filename, info.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(info).decode() == "".join(f"{label}\n" for label in LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": LABELS[:3]}, "labels must be as many"),
        ({"labels": []}, "labels must be as many"),
        ({"labels": ["a\nb", *LABELS[1:]]}, "one line of text"),
        ({"labels": ["", *LABELS[1:]]}, "one line of text"),
        ({"labels": [3, *LABELS[1:]]}, "one line of text"),
        ({"normalisation": {"gone": Normalisation(0, 1)}}, "must name inputs"),
        ({"normalisation": {"IMAGE": Normalisation((0, 0, 0), (1, 1, 1))}}, "for each channel"),
    ],
)
def test_what_does_not_fit_is_refused(digits, options, message):
    name = open_model(digits).inputs[0].name
    if "normalisation" in options and "IMAGE" in options["normalisation"]:
        options = {"normalisation": {name: options["normalisation"]["IMAGE"]}}
    with pytest.raises(ValueError, match=message):
        attach(digits, name="a", version="1", **options)


@pytest.mark.parametrize(("mean", "std"), [(0, 0), ((0, 0), (1,)), ((), ()), (float("nan"), 1), (0, -1)])
def test_a_normalisation_is_possible(mean, std):
    with pytest.raises(ValueError, match="must be"):
        Normalisation(mean, std)


def test_damaged_metadata_is_an_error(attached):
    model = flatbuffer.parse(attached)
    for damaged in (b"", b"x" * 100, metadata_flatbuffer.encode({"name": "a"})[:20]):
        metadata._set_entry(model, metadata.ENTRY, damaged)
        with pytest.raises(ModelError, match="metadata"):
            read(flatbuffer.pack(model))
    with pytest.raises(ModelError, match="labels.txt"):
        read(attached[: attached.rindex(b"PK\5\6")])


def test_a_table_named_over_and_over_ends():
    names = ["x" * 100] * 3
    content = bytearray(metadata_flatbuffer.encode({"subgraph_metadata": [{"name": name} for name in names]}))
    assert len(metadata_flatbuffer.decode(bytes(content))["subgraph_metadata"]) == 3
    place = bytes(content).index((3).to_bytes(4, "little"))
    content[place : place + 4] = (2**30).to_bytes(4, "little")
    with pytest.raises(ModelError, match="damaged"):
        metadata_flatbuffer.decode(bytes(content))


# A real consumer, in an environment of its own, because it brings other versions along.

PINS = Path(__file__).with_name("mediapipe.txt")


@pytest.fixture(scope="session")
def mediapipe_python():
    """The Python of an environment with MediaPipe Tasks; TFCOMPRESS_MEDIAPIPE names another."""
    return python_with("mediapipe", PINS)


CLASSIFY = """
import sys, json
import numpy as np, mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=3)
with vision.ImageClassifier.create_from_options(options) as classifier:
    for picture in np.load(sys.argv[2]):
        result = classifier.classify(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture)))
        print("ANSWER", json.dumps([[c.index, c.category_name, c.score] for c in result.classifications[0].categories]))
"""


def classify(python, path, pictures, folder):
    """Returns MediaPipe's best three of each picture as (index, label, score)."""
    np.save(folder / "pictures.npy", pictures)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-c", CLASSIFY, path, folder / "pictures.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert len(answers) == len(pictures), done.stderr[-2000:]
    return answers


def coloured_squares(count):
    """Pictures (count, 32, 32, 3) uint8 of one colour each and its index (red, green, blue)."""
    random = np.random.default_rng(3)
    classes = random.integers(0, 3, count)
    pictures = random.integers(0, 120, (count, 32, 32, 3))
    pictures[np.arange(count), :, :, classes] += 100
    return pictures.astype(np.uint8), classes


@pytest.fixture(scope="module")
def colour_model():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), name="image"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    model.layers[-1].set_weights([12 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("target", ["float32", "cpu-uint8-io", "cpu-int8-float-io"])
def test_mediapipe_loads_the_file_and_answers_with_our_labels(mediapipe_python, colour_model, target, tmp_path):
    pictures, classes = coloured_squares(6)
    scaled = pictures.astype(np.float32) / 127.5 - 1
    result = tfc.convert(colour_model, target=target, representative_data=scaled)
    labels = ["red", "green", "blue"]
    pixels = {"image": Normalisation(127.5, 127.5)}
    path = tmp_path / "m.tflite"
    path.write_bytes(attach(result.tflite, name="colours", version="1", labels=labels, normalisation=pixels))
    answers = classify(mediapipe_python, path, pictures, tmp_path)
    expected = next(iter(open_model(result.tflite).run(scaled).values()))
    for answer, scores, chosen in zip(answers, expected, classes, strict=True):
        assert answer[0][1] == labels[chosen]
        for index, label, score in answer:
            assert label == labels[index]
            # One step of an int8 output, plus MediaPipe's own float32 pixel arithmetic.
            assert score == pytest.approx(scores[index], abs=1.5 / 256)


@pytest.mark.slow
def test_mediapipe_refuses_what_the_guide_says_it_refuses(mediapipe_python, colour_model, tmp_path):
    pictures, _ = coloured_squares(6)
    labels, pixels = ["red", "green", "blue"], {"image": Normalisation(127.5, 127.5)}
    np.save(tmp_path / "pictures.npy", pictures)
    for target, normalisation in (("cpu-int8", pixels), ("float32", {})):
        result = tfc.convert(colour_model, target=target, representative_data=pictures.astype(np.float32) / 127.5 - 1)
        path = tmp_path / f"{target}.tflite"
        path.write_bytes(attach(result.tflite, name="c", version="1", labels=labels, normalisation=normalisation))
        command = [mediapipe_python, "-c", CLASSIFY, path, tmp_path / "pictures.npy"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode and "ANSWER" not in done.stdout
        assert ("Type mismatch" if normalisation else "Expected ImageProperties") in done.stderr


@pytest.mark.slow
def test_mediapipe_classifies_photographs_with_a_real_model(mediapipe_python, shared_data, tmp_path):
    """The official ResNet-8 in our int8 file, as an app has it: labels and normalisation come from the file alone."""
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as file:
        pictures, truth, samples = file["x_test"][:50], file["y_test"][:50].ravel(), file["x_train"][:100]
    (model,) = (shared_data / "mlperf_resnet8").glob("*.h5")
    labels = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    data = samples.astype(np.float32)
    result = tfc.convert(
        model, target="cpu-uint8-io", representative_data=data, scaling="raw", metadata=tfc.Metadata(labels=labels)
    )
    own = open_model(result.tflite)
    name = own.inputs[0].name
    path = tmp_path / "m.tflite"
    path.write_bytes(
        attach(result.tflite, name="cifar", version="1", labels=labels, normalisation={name: Normalisation(0, 1)})
    )
    answers = classify(mediapipe_python, path, pictures, tmp_path)
    scores = next(iter(own.run(pictures.astype(np.float32)).values()))
    for answer, expected in zip(answers, scores, strict=True):
        index, label, score = answer[0]
        assert label == labels[index]
        assert score == pytest.approx(expected.max(), abs=1.5 / 256)
        assert expected[index] == expected.max()
    accuracy = np.mean([answer[0][0] == wanted for answer, wanted in zip(answers, truth, strict=True)])
    assert accuracy >= 0.8  # 0.89 on all 500


@pytest.mark.slow
def test_mediapipe_takes_the_file_of_the_guide(mediapipe_python, tmp_path, monkeypatch):
    """docs/android.md names ``classifier.tflite`` to an app."""
    path = ROOT / "docs" / "android.md"
    monkeypatch.chdir(tmp_path)
    page = pages.Page(path, tmp_path)
    for block in pages.blocks(path.read_text()):
        if block.language in ("python", "bash") and block.reason is None:
            page.run(block)
    pictures, classes = coloured_squares(6)
    answers = classify(mediapipe_python, tmp_path / "classifier.tflite", pictures, tmp_path)
    assert [answer[0][1] for answer in answers] == [("red", "green", "blue")[index] for index in classes]
    scores = next(
        iter(open_model(tmp_path / "classifier.tflite").run(pictures.astype(np.float32) / 127.5 - 1).values())
    )
    for answer, expected in zip(answers, scores, strict=True):
        assert answer[0][2] == pytest.approx(expected.max(), abs=1.5 / 256)


@pytest.mark.slow
def test_the_schema_is_the_published_one(mediapipe_python):
    """Against the generated reader of MediaPipe, which is the schema compiled by flatc."""
    code = """
import sys, struct
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
m = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAsModelMetadata(bytearray(sys.stdin.buffer.read()), 0))
g = m.subgraphMetadata[0]
i, o = g.inputTensorMetadata[0], g.outputTensorMetadata[0]
unit = i.processUnits[0]
print(m.name, m.version, m.description, m.minParserVersion, i.name, i.content.contentPropertiesType,
      i.content.contentProperties.colorSpace, unit.optionsType, [float(v) for v in unit.options.mean], [float(v) for v in unit.options.std],
      o.name, o.associatedFiles[0].name, o.associatedFiles[0].type)
"""
    content = DIGITS.read_bytes()
    name, answer = (tensors[0].name for tensors in (open_model(content).inputs, open_model(content).outputs))
    finished = attach(
        content, name="n", version="v", description="d", labels=LABELS, normalisation={name: Normalisation(1, 2)}
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [mediapipe_python, "-c", code],
        input=metadata._entry(flatbuffer.parse(finished), metadata.ENTRY),
        capture_output=True,
        check=False,
        env=environment,
    )
    wanted = f"b'n' b'v' b'd' b'1.0.0' {name.encode()} 2 2 1 [1.0] [2.0] {answer.encode()} b'labels.txt' 2"
    assert done.stdout.decode().strip() == wanted, done.stderr.decode()[-2000:]

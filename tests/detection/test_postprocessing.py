"""The choice among boxes inside a ``.tflite`` file is that of NumPy, and the only float op of an integer file."""

import warnings

import keras
import numpy as np
import pytest
from boxes import random_boxes

import tfcompress as tfc
from tfcompress import zoo
from tfcompress.conversion import verification
from tfcompress.detection.anchors import anchor_grid, encode
from tfcompress.detection.non_max_suppression import Detections, detect
from tfcompress.detection.postprocessing import OP, OUTPUTS, attach_detections
from tfcompress.errors import ConversionError, StrictError, TfcompressError
from tfcompress.lowering import lower_keras
from tfcompress.tflite import flatbuffer, metadata, static_shapes
from tfcompress.tflite.interpreter import open_model
from tfcompress.zoo.ssdlite import ssdlite_anchors

ANCHORS = anchor_grid([(3, 4)], [[(0.3, 0.3)]])
CLASSES = 2
SETTINGS = Detections(ANCHORS, classes=CLASSES, most=10, least_score=0.1, overlap=0.3)
TARGETS = ("float32", "float16", "cpu-int8", "cpu-int8-float-io", "cpu-uint8-io", "cpu-int16x8")


def build():
    """Returns a detector whose heads answer half of what it is given."""
    codes, logits = keras.Input((len(ANCHORS), 4), name="codes"), keras.Input((len(ANCHORS), CLASSES), name="classes")
    outputs = {
        "boxes": keras.layers.Rescaling(0.5, name="boxes")(codes),
        "logits": keras.layers.Rescaling(0.5, name="logits")(logits),
    }
    return keras.Model([codes, logits], outputs, name="halves")


def samples(count=8):
    """Returns what ``build`` takes: boxes near their anchors, and scores of which no two of a picture are alike."""
    rng = np.random.default_rng(4)
    near = [encode(0.5 * random_boxes(len(ANCHORS), i) + 0.25, ANCHORS) for i in range(count)]
    levels = np.linspace(-3, 3, len(ANCHORS) * CLASSES)
    logits = [rng.permutation(levels).reshape(len(ANCHORS), CLASSES) for _ in range(count)]
    return {"codes": 2 * np.asarray(near, np.float32), "classes": 2 * np.asarray(logits, np.float32)}


@pytest.fixture(scope="module")
def heads():
    """The files of the same model without its ending."""
    model, x = build(), samples()
    return {target: tfc.convert(model, target=target, representative_data=x).tflite for target in TARGETS}


@pytest.mark.filterwarnings("ignore:Representative data")
@pytest.mark.parametrize("target", TARGETS)
def test_the_file_chooses_as_numpy_does(heads, target):
    x = samples()
    answered = open_model(heads[target]).run(x)
    found = open_model(attach_detections(heads[target], SETTINGS)).run(x)
    assert list(found) == list(OUTPUTS)
    suppressed = 0
    for picture in range(len(x["codes"])):
        scores = 1 / (1 + np.exp(-answered["logits"][picture].astype(np.float64)))
        boxes, classes, expected = detect(answered["boxes"][picture], scores, SETTINGS)
        count = int(found["count"][picture])
        assert count == len(boxes) > 0
        suppressed += int((scores >= SETTINGS.least_score).sum()) - count
        np.testing.assert_array_equal(found["classes"][picture, :count], classes)
        # decoded in float32 from the very same numbers
        np.testing.assert_allclose(found["boxes"][picture, :count], boxes, atol=1e-5)
        # LOGISTIC has steps of 1/256 in int8
        np.testing.assert_allclose(
            found["scores"][picture, :count], expected, atol=1 / 256 if "int8" in target or "uint8" in target else 1e-4
        )
    assert suppressed > 0


@pytest.mark.parametrize("target", ["cpu-int8", "cpu-int8-float-io", "cpu-uint8-io"])
def test_the_choice_is_the_only_float_op_of_an_integer_file(heads, target):
    content = attach_detections(heads[target], SETTINGS)
    assert list(verification.float_operators(content)) == [OP]
    assert verification.forbidden_floats(content, tfc.TARGETS[target], allow_float=[OP]) == []
    assert verification.forbidden_floats(content, tfc.TARGETS[target]) != []
    counts = flatbuffer.op_counts(flatbuffer.parse(content))
    assert counts["DEQUANTIZE"] == 2 and counts["LOGISTIC"] == counts[OP] == 1


def test_heads_have_ranges_of_their_own(heads):
    outputs = open_model(heads["cpu-int8"]).outputs
    scales = {info.name: info.scale for info in outputs}
    x = samples()
    for name, given in (("boxes", x["codes"]), ("logits", x["classes"])):
        assert scales[name] == pytest.approx(np.ptp(given) / 2 / 255, rel=0.01)
    assert scales["boxes"] != scales["logits"]


@pytest.mark.filterwarnings("ignore:Representative data")
def test_convert_writes_it_with_labels_and_asks_for_leave():
    options = {"target": "cpu-int8", "representative_data": samples(), "detections": SETTINGS}
    with pytest.raises(StrictError, match=OP):
        tfc.convert(build(), **options)
    result = tfc.convert(build(), allow_float=OP, metadata=tfc.Metadata(labels=["round", "long"]), **options)
    assert result.ops[OP] == 1 and result.parity.max_steps <= 1.01
    said = metadata.read(result.tflite)
    assert said.outputs == OUTPUTS and said.labels == ("round", "long")


def test_other_outputs_and_other_anchors_are_refused(heads):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
    with pytest.raises(ConversionError, match="outputs boxes and logits"):
        tfc.convert(model, target="float32", detections=SETTINGS)
    with pytest.raises(ConversionError, match=r"shape \(1, 12, 3\).*Received: \(1, 12, 2\)"):
        attach_detections(heads["float32"], Detections(ANCHORS, classes=3))
    with pytest.raises(ConversionError, match=r"shape \(1, 11, 4\)"):
        attach_detections(heads["float32"], Detections(ANCHORS[1:], classes=2))


def test_a_fixed_batch_leaves_the_signature_in_order():
    """Shapes that become constants leave tensors behind; the signature names tensors by their number."""
    x = keras.Input((2, 7), name="x")
    model = keras.Model(x, {"boxes": keras.layers.Dense(4)(x), "logits": keras.layers.Dense(2)(x)})
    content = static_shapes.fix_batch(lower_keras(model).content)
    parsed = flatbuffer.parse(content)
    graph, signature = parsed.subgraphs[0], parsed.signatureDefs[0]
    assert {int(entry.tensorIndex) for entry in signature.outputs} == {int(index) for index in graph.outputs}
    found = open_model(content).run({"x": np.ones((1, 2, 7), np.float32)})
    expected = model(np.ones((1, 2, 7), np.float32))
    for name in ("boxes", "logits"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("target", ["gpu-fp16", "edge-tpu", "ethos-u"])
def test_three_targets_refuse_the_choice_as_the_zoo_says(target):
    entry = zoo.MODELS["ssdlite"]
    model = zoo.build("ssdlite", **entry.small)
    anchors = ssdlite_anchors(input_shape=entry.small["input_shape"])
    pictures = np.random.default_rng(0).uniform(-1, 1, (8, *entry.small["input_shape"])).astype(np.float32)
    with pytest.raises(TfcompressError, match=OP), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noise is no representative data
        choice = Detections(anchors, classes=entry.small["classes"])
        tfc.convert(model, target=target, representative_data=pictures, detections=choice, allow_float=[OP])
    assert target in entry.refused and entry.float_ops == (OP,)

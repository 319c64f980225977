"""Quantization-aware training of every kind of model: subclassed, nested, shared layers, several inputs and outputs."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from models import compiled, striped_pictures
from tfcompress.errors import ConversionError, StrictError
from tfcompress.qat.file_agreement import SAME_ANSWERS, compare_with_file
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(128)
TEST_X = striped_pictures(1000, seed=1)[0]
RANDOM = np.random.default_rng(0)


class Subclassed(keras.Model):
    """Two blocks in a list and a nested model, called as people write it."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.blocks = [
            keras.Sequential(
                [layers.Conv2D(8, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
            )
            for _ in range(2)
        ]
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(3)

    def call(self, x, training=None):
        first = self.blocks[0](x, training=training)
        return self.head(self.pool(first + self.blocks[1](first, training=training)))


def subclassed():
    model = Subclassed()
    model(X[:1])
    return model, X


def nested():
    inner = keras.Sequential([keras.Input((8, 8, 8)), layers.Conv2D(8, 3, padding="same"), layers.ReLU()], name="inner")
    image = keras.Input((8, 8, 2), name="image")
    x = layers.ReLU()(layers.Conv2D(8, 1)(image))
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(inner(inner(x)) + x))), X


def several_inputs():
    image, side = keras.Input((8, 8, 2), name="image"), keras.Input((3,), name="side")
    x = layers.Concatenate()([layers.Flatten()(image), layers.Dense(4, activation="relu")(side)])
    return keras.Model([image, side], layers.Dense(3)(x)), {
        "image": X,
        "side": RANDOM.normal(size=(128, 3)).astype("float32"),
    }


def test_what_a_model_computes_between_its_layers_is_said_and_calibrated():
    """x + y of a subclassed model is no layer, and has no output in Keras."""
    keras.utils.set_random_seed(0)
    model, x = subclassed()
    qat = tfc.QuantizationAwareTraining(verify=x)
    with pytest.warns(UserWarning, match="subclassed: what it computes between its layers") as caught:
        compiled(model, jit_compile=False).fit(x, Y, epochs=6, batch_size=16, verbose=0, callbacks=[qat])
    assert len(caught) == 1
    assert list(qat.plan.skipped) == ["subclassed"]
    assert qat.file_agreement.calibrated == 1
    assert qat.file_agreement.same_answers >= SAME_ANSWERS
    with pytest.raises(
        ConversionError, match=r"5 trained and 1 missing \(subclassed\S*/add\). Pass --representative_data"
    ):
        tfc.convert(model)
    result = tfc.convert(model, representative_data=x)
    assert result.float_tensors == ()
    assert (result.points.trained, result.points.calibrated) == (5, 1)


@pytest.mark.parametrize("build", [nested, several_inputs])
def test_the_whole_model_is_integer_and_answers_as_trained(build):
    keras.utils.set_random_seed(0)
    model, x = build()
    qat = tfc.QuantizationAwareTraining()
    compiled(model, jit_compile=False).fit(x, Y, epochs=6, batch_size=16, verbose=0, callbacks=[qat])
    assert tfc.convert(model, target="cpu-int8").float_tensors == ()
    agreement = compare_with_file(model, qat, x)
    assert agreement.calibrated == 0
    assert agreement.same_answers >= SAME_ANSWERS


def test_several_outputs():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2), name="image")
    x = layers.ReLU()(layers.Conv2D(8, 3)(image))
    x = layers.Flatten()(x)
    model = keras.Model(image, {"kind": layers.Dense(3, name="kind")(x), "size": layers.Dense(1, name="size")(x)})
    losses = {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"}
    model.compile("adam", losses, jit_compile=False)
    qat = tfc.QuantizationAwareTraining(verify=TEST_X)
    targets = {"kind": Y, "size": X.mean((1, 2, 3))[:, None]}
    model.fit(X, targets, epochs=4, batch_size=16, verbose=0, callbacks=[qat])
    assert {difference.name for difference in qat.file_agreement.outputs} == {"kind", "size"}
    assert qat.file_agreement.same_answers >= SAME_ANSWERS


class Scaled(layers.Layer):
    """A layer of one's own: multiplies each channel by a weight."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


def test_a_layer_of_ones_own_joins_by_one_rule():
    def build():
        keras.utils.set_random_seed(0)
        return compiled(
            keras.Sequential(
                [keras.Input((8, 8, 2)), layers.Conv2D(4, 3), Scaled(), layers.Flatten(), layers.Dense(3)]
            ),
            jit_compile=False,
        )

    with pytest.warns(UserWarning, match="no rule for Scaled"):
        build().fit(X, Y, verbose=0, callbacks=[tfc.QuantizationAwareTraining()])
    tfc.quantization_points.register(
        Scaled, tfc.quantization_points.Rule("compute", (tfc.quantization_points.WeightRule("scale", ()),))
    )
    try:
        model, qat = build(), tfc.QuantizationAwareTraining(verify=TEST_X)
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[qat])
        assert qat.file_agreement.calibrated == 0
        assert qat.file_agreement.same_answers >= SAME_ANSWERS
    finally:
        del tfc.quantization_points.RULES["Scaled"]


def test_three_dimensions_train_and_the_file_says_what_stays_in_float():
    """TFLite has CONV_3D in float only: strict conversion names it, --allow_float lets it pass."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 6, 6, 1)), layers.Conv3D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )
    x = RANDOM.normal(size=(64, 6, 6, 6, 1)).astype("float32")
    qat = tfc.QuantizationAwareTraining()
    with pytest.warns(UserWarning, match="TFLite has CONV_3D in float only"):
        compiled(model, jit_compile=False).fit(x, Y[:64], epochs=2, verbose=0, callbacks=[qat])
    with pytest.raises(StrictError, match="CONV_3D"):
        tfc.convert(model, target="cpu-int8", representative_data=x)
    result = tfc.convert(model, target="cpu-int8", representative_data=x, allow_float=["CONV_3D"])
    file = open_model(result.tflite)
    assert next(iter(file.run({file.inputs[0].name: x}).values())).shape == (64, 3)


def test_a_conversion_in_the_middle_of_a_fit_does_not_end_it():
    keras.utils.set_random_seed(0)
    model, qat = compiled(nested()[0], jit_compile=False), tfc.QuantizationAwareTraining()
    files, settled = [], []

    class Convert(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            settled.append(qat.settled())

        def on_epoch_end(self, epoch, logs=None):
            files.append(tfc.convert(self.model, target="cpu-int8").tflite)

    history = model.fit(X, Y, epochs=3, validation_data=(X, Y), verbose=0, callbacks=[qat, Convert()])
    assert all(settled)
    assert len({bytes(file) for file in files}) == 3
    answers = next(iter(open_model(files[-1]).run({"image": X}).values()))
    assert np.mean(answers.argmax(1) == Y) == pytest.approx(history.history["val_accuracy"][-1], abs=0.01)

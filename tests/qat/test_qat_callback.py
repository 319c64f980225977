"""The QAT callback in real fits: fake-quantized inside, plain outside, ranges that travel, equal to the file."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.errors import ConversionError, TrainingError
from tfcompress.qat.file_agreement import SAME_ANSWERS
from tfcompress.quantization.trained_ranges import read_archive, trained_ranges
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(256)
TEST_X, TEST_Y = striped_pictures(512, seed=1)


def fit(model, callbacks, epochs=4, **options):
    return model.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model after pruning and QAT, its callback, its history and its saved file."""
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining(begin_epoch=1)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=20), frequency=1)
    history = fit(model, [pruning, qat], epochs=6, validation_data=(TEST_X, TEST_Y))
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model.save(path)
    return model, qat, history.history, path


def test_validation_evaluate_and_the_file_answer_alike(trained):
    model, qat, history, path = trained
    quantized = model.evaluate(TEST_X, TEST_Y, verbose=0, callbacks=[qat], return_dict=True)
    plain = model.evaluate(TEST_X, TEST_Y, verbose=0, return_dict=True)
    assert quantized["accuracy"] == pytest.approx(history["val_accuracy"][-1])
    assert quantized["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-5)
    assert quantized["loss"] != plain["loss"]  # it is another model outside

    answers = model.predict(TEST_X, verbose=0, callbacks=[qat])
    file = open_model(tfc.convert(path).tflite)
    logits = file.run({"image": TEST_X})["logits"]
    steps = np.abs(logits - answers) / file.outputs[0].scale
    assert np.mean(logits.argmax(1) == answers.argmax(1)) >= 0.998
    assert (
        steps.max() <= 3.01
    )  # requantization in integers may differ by a step in each of three layers behind one another
    assert np.mean(steps > 1.01) < 0.02
    assert np.mean(logits.argmax(1) == TEST_Y) == pytest.approx(quantized["accuracy"], abs=0.002)


def test_without_the_callback_it_is_the_float_model_again(trained):
    model, qat, _, path = trained
    before = model.predict(TEST_X, verbose=0)
    model.predict(TEST_X, verbose=0, callbacks=[qat])
    np.testing.assert_array_equal(model.predict(TEST_X, verbose=0), before)
    np.testing.assert_allclose(keras.models.load_model(path).predict(TEST_X, verbose=0), before, rtol=1e-5, atol=1e-6)
    assert all("call" not in vars(layer) for layer in (model, *model.layers))


def test_a_plain_keras_opens_the_file(trained, tmp_path):
    import subprocess
    import sys

    code = f"""
import sys, keras
model = keras.models.load_model({str(trained[3])!r})
assert not any(name.startswith("tfcompress") for name in sys.modules)
print(type(model).__module__, len(model.layers))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[0].startswith("keras.")


def test_ranges_survive_the_file(trained):
    model, qat, _, path = trained
    stored = read_archive(path)
    assert stored.ranges == qat.ranges == trained_ranges(model).ranges
    assert set(qat.ranges) == set(qat.plan.tracked)


def test_a_trained_model_needs_no_data_and_says_where_ranges_came_from(trained):
    result = tfc.convert(trained[3])
    assert (result.points.trained, result.points.calibrated, result.points.missing) == (6, 0, 0)
    assert result.target.name == "cpu-int8"
    assert result.float_tensors == ()
    in_process = tfc.convert(trained[0])
    assert in_process.tflite == result.tflite


def test_pruned_zeros_arrive_in_the_file(trained):
    result = tfc.convert(trained[3])
    for name, sparsity in result.contents.sparsity.items():
        assert sparsity >= 0.49, name  # 50 % of each kernel, rounded to whole weights; rounding to int8 adds zeros


def test_the_scales_of_the_file_are_the_trained_ones(trained):
    _, qat, _, path = trained
    file = open_model(tfc.convert(path).tflite)
    low, high = qat.ranges["logits"]
    assert file.outputs[0].scale == pytest.approx((high - low) / 255, rel=1e-5)  # nudged in float32


def test_ranges_of_other_weights_are_refused(trained, tmp_path):
    model = keras.models.clone_model(trained[0])
    model.set_weights(trained[0].get_weights())
    compiled(model)
    qat = tfc.QuantizationAwareTraining()
    fit(model, [qat], epochs=1)
    fit(model, [], epochs=1)
    model.save(tmp_path / "moved.keras")
    for source in (model, tmp_path / "moved.keras"):
        with pytest.raises(ConversionError, match="--ranges=calibrated"):
            tfc.convert(source)
    assert tfc.convert(model, calibration=tfc.CalibrationOptions(ranges="trained")).points.trained == 6
    calibrated = tfc.convert(model, calibration=tfc.CalibrationOptions(ranges="calibrated"), representative_data=X)
    assert calibrated.points.trained == 0
    assert calibrated.points.calibrated > 0


def test_ranges_stand_still_from_the_freeze_on():
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining(freeze_epoch=1)
    seen = []
    fit(model, [qat, keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(qat.ranges)))], 3)
    assert seen[0] == seen[1] == seen[2]
    assert all(low <= 0 <= high for low, high in seen[0].values())
    assert {name for name, (low, _) in seen[0].items() if low == 0} >= {"stem_relu", "depthwise_relu", "pointwise"}


def test_before_begin_epoch_the_training_is_the_plain_one():
    histories = []
    for callbacks in ([], [tfc.QuantizationAwareTraining(begin_epoch=2)]):
        model = compiled(tiny_cnn(), jit_compile=False)
        histories.append(fit(model, callbacks, epochs=3, shuffle=False).history["loss"][:2])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"jit_compile": False}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=str
)
def test_learns_ranges_under_every_way_to_run(options):
    model = compiled(tiny_cnn(), **options)
    qat = tfc.QuantizationAwareTraining()
    fit(model, [qat], epochs=1)
    assert set(qat.ranges) == set(qat.plan.tracked)


def test_a_second_fit_goes_on_with_the_ranges():
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining()
    fit(model, [qat], epochs=1)
    first = qat.ranges
    fit(model, [qat], epochs=1)
    assert qat.ranges.keys() == first.keys()
    assert qat.ranges != first


def test_mixed_precision_trains_and_converts():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(tiny_cnn())
    finally:
        keras.config.set_dtype_policy(policy)
    qat = tfc.QuantizationAwareTraining()
    fit(model, [qat], epochs=1)
    result = tfc.convert(model)
    assert result.float_tensors == ()
    assert model.layers[1].compute_dtype == "float16"
    file = open_model(result.tflite).run({"image": X})["logits"].argmax(1)
    assert np.mean(file == model.predict(X, verbose=0, callbacks=[qat]).argmax(1)) >= SAME_ANSWERS


def test_an_exception_in_the_data_leaves_the_float_model():
    model = compiled(tiny_cnn())

    def broken():
        yield X[:32], Y[:32]
        raise RuntimeError("the disk is gone")

    with pytest.raises(Exception, match="the disk is gone"):
        model.fit(broken(), shuffle=False, verbose=0, callbacks=[tfc.QuantizationAwareTraining()])
    assert all("call" not in vars(layer) for layer in (model, *model.layers))
    assert model.train_function is None


def test_evaluation_before_training_is_an_error():
    model = compiled(tiny_cnn())
    with pytest.raises(TrainingError, match="Pass the same callback to model.fit first"):
        model.evaluate(TEST_X, TEST_Y, verbose=0, callbacks=[tfc.QuantizationAwareTraining()])


@pytest.mark.parametrize(
    "options",
    [{"begin_epoch": -1}, {"begin_epoch": 1.5}, {"freeze_epoch": 0}, {"momentum": 1.0}, {"begin_epoch": True}],
    ids=str,
)
def test_wrong_arguments(options):
    with pytest.raises(ValueError, match="Received"):
        tfc.QuantizationAwareTraining(**options)


def picture():
    return keras.Input((8, 8, 2), name="image")


def block(x, filters=8, **options):
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, **options)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))


def concatenating():
    x = block(image := picture())
    x = layers.Concatenate()([block(x), x, layers.MaxPooling2D(3, 1, padding="same")(x)])
    return keras.Model(image, layers.Dense(3, name="answer")(layers.GlobalAveragePooling2D()(block(x))))


def squeeze_and_excite():
    x = block(image := picture())
    gate = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(gate)])
    return keras.Model(image, layers.Dense(3, name="answer")(layers.Flatten()(x)))


def softmax_and_tanh():
    x = layers.Dense(16, activation="tanh")(layers.Flatten()(block(image := picture())))
    return keras.Model(image, layers.Dense(3, activation="softmax", name="answer")(x))


def transposed():
    x = block(image := picture(), strides=2)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, layers.Dense(3, name="answer")(layers.Flatten()(layers.UpSampling2D(2)(x))))


def nested():
    inner = keras.Sequential([keras.Input((8, 8, 8)), layers.Conv2D(8, 3, padding="same"), layers.ReLU()])
    x = block(image := picture())
    return keras.Model(image, layers.Dense(3, name="answer")(layers.Flatten()(inner(x) + x)))


def dense_with_norm():
    x = layers.Dense(16, use_bias=False)(layers.Flatten()(image := picture()))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    return keras.Model(image, layers.Dense(3, name="answer")(x))


@pytest.mark.parametrize(
    "build", [concatenating, squeeze_and_excite, softmax_and_tanh, transposed, nested, dense_with_norm]
)
def test_the_file_answers_as_the_fake_quantized_model(build):
    keras.utils.set_random_seed(0)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=build is not softmax_and_tanh)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    qat = tfc.QuantizationAwareTraining()
    fit(model, [qat], epochs=3)
    expected = model.predict(TEST_X, verbose=0, callbacks=[qat])
    result = tfc.convert(model)  # every range was trained: no data
    file = open_model(result.tflite)
    answers = file.run({"image": TEST_X})["answer"]
    steps = np.abs(answers - expected) / file.outputs[0].scale
    assert result.points.calibrated == 0
    assert np.mean(answers.argmax(1) == expected.argmax(1)) >= 0.998
    assert np.mean(steps > 1.01) < 0.01  # integer requantization may be a step off in any layer, seldom more in the end


def two_inputs():
    b, a = keras.Input((8, 8, 2), name="b"), keras.Input((3,), name="a")
    x = layers.Concatenate()([layers.Dense(4, name="picture")(layers.Flatten()(b)), layers.Dense(4, name="side")(a)])
    return compiled(keras.Model([b, a], layers.Dense(3, name="head")(x)))


def test_inputs_by_name_keep_their_own_ranges():
    model, qat = two_inputs(), tfc.QuantizationAwareTraining()
    side = np.random.default_rng(0).normal(0, 20, (len(X), 3)).astype("float32")
    model.fit({"a": side, "b": X}, Y, epochs=2, verbose=0, callbacks=[qat])
    assert qat.ranges["input:a"][1] > 10 > qat.ranges["input:b"][1]
    by_name = model.predict({"a": side, "b": X}, verbose=0, callbacks=[qat])
    np.testing.assert_array_equal(by_name, model.predict([X, side], verbose=0, callbacks=[qat]))


def test_a_resumed_fit_learns_ranges():
    model, qat = compiled(tiny_cnn()), tfc.QuantizationAwareTraining()
    history = model.fit(X, Y, initial_epoch=4, epochs=6, verbose=0, callbacks=[qat])
    assert qat.ranges
    assert history.history["loss"][-1] < np.log(3)
    late = tfc.QuantizationAwareTraining(begin_epoch=1, freeze_epoch=3)
    model.fit(X, Y, initial_epoch=3, epochs=4, verbose=0, callbacks=[late])
    assert late.ranges


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_an_exception_elsewhere_is_put_right_by_the_next_use(tmp_path):
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[qat, Stop()])
    learned = qat.ranges
    result = tfc.convert(model)
    assert result.points.missing == 0 and result.points.trained
    plain = model.predict(X, verbose=0)
    np.testing.assert_allclose(keras.models.clone_model(model).get_weights()[0].shape, model.get_weights()[0].shape)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "m.keras").predict(X, verbose=0), plain, atol=1e-5)
    assert qat.ranges == learned
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[qat])


def test_a_late_begin_survives_an_interrupted_fit():
    model, qat = compiled(tiny_cnn()), tfc.QuantizationAwareTraining(begin_epoch=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[qat, Stop()])
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[qat])
    assert qat.ranges


def test_each_model_keeps_its_own_ranges():
    first, second, qat = compiled(tiny_cnn()), compiled(tiny_cnn(1)), tfc.QuantizationAwareTraining()
    first.fit(X, Y, epochs=1, verbose=0, callbacks=[qat])
    of_first = qat.ranges
    second.fit(X * 10, Y, epochs=1, verbose=0, callbacks=[qat])
    assert trained_ranges(first).ranges == of_first != trained_ranges(second).ranges
    assert tfc.convert(first).points.missing == 0


def test_an_evaluation_after_a_fit_that_did_not_start_is_refused():
    model, qat = compiled(tiny_cnn()), tfc.QuantizationAwareTraining()
    with pytest.raises(ValueError, match="pattern"):
        model.fit(X, Y, verbose=0, callbacks=[qat, tfc.MagnitudePruning(0.5, layers="nope")])
    with pytest.raises(TrainingError, match="learned no ranges"):
        model.evaluate(X, Y, verbose=0, callbacks=[qat])


def test_a_begin_after_the_end_is_one_warning():
    with pytest.warns(UserWarning, match="no range was learned"):
        compiled(tiny_cnn()).fit(X, Y, epochs=1, verbose=0, callbacks=[tfc.QuantizationAwareTraining(begin_epoch=5)])


def test_either_order_with_pruning_converts():
    model = compiled(tiny_cnn())
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, begin=0, end=6), frequency=100)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[tfc.QuantizationAwareTraining(), pruning])
    assert tfc.convert(model).points.missing == 0

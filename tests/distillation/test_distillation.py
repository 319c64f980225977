"""Distillation: the formula, features, and every callback on the student."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import striped_pictures, tiny_cnn
from tfcompress.distillation.distiller import SoftTargets
from tfcompress.errors import TrainingError
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(256)


def compiled(distiller):
    distiller.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return distiller


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2), name="image"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="features"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, epochs=6, verbose=0)
    return model


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("from_logits", [True, False])
def test_soft_targets_follow_the_formula(temperature, from_logits):
    random = np.random.default_rng(0)
    teacher, student = random.normal(0, 3, (2, 16, 5))

    def softmax(values):
        powers = np.exp(values - values.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))
    given = (teacher, student) if from_logits else (softmax(teacher), softmax(student))
    loss = SoftTargets(temperature, from_logits=from_logits).compute_loss(*given)
    assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_the_whole_loss_is_that_of_the_formula(teacher):
    """loss = w * CE + (1 - w) * (T**2 * KL + fw * MSE) + what the student's own layers add, in NumPy."""
    weight, temperature, feature_weight, penalty = 0.3, 2.0, 0.5, 1e-2
    student = tiny_cnn()
    student.get_layer("stem").kernel.regularizer = keras.regularizers.L2(penalty)
    distiller = tfc.distill(
        student, teacher, temperature=temperature, student_weight=weight, features={"stem_relu": "features"},
        feature_weight=feature_weight,
    )  # fmt: skip
    # A rate of zero: the loss is that of the weights as they are. BatchNorm answers as in training.
    distiller.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(X[:32], Y[:32], batch_size=32, verbose=0).history
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 1.0
    parts = keras.Model(student.inputs[0], [student.outputs[0], student.get_layer("stem_relu").output])
    logits, features = (np.asarray(values, np.float64) for values in parts(X[:32], training=True))
    theirs = keras.Model(teacher.inputs[0], [teacher.outputs[0], teacher.get_layer("features").output])
    taught, wanted = (np.asarray(values, np.float64) for values in theirs(X[:32]))

    def log_softmax(values):
        return values - np.log(np.sum(np.exp(values), axis=-1, keepdims=True))

    hard = -np.mean(log_softmax(logits)[np.arange(32), Y[:32]])
    p, q = log_softmax(taught / temperature), log_softmax(logits / temperature)
    soft = temperature**2 * np.mean(np.sum(np.exp(p) * (p - q), axis=-1))
    projected = features @ np.asarray(distiller.projections[0].kernel, np.float64)
    apart = np.mean((wanted - projected) ** 2)
    own = penalty * np.sum(np.asarray(student.get_layer("stem").kernel, np.float64) ** 2)
    expected = weight * hard + (1 - weight) * (soft + feature_weight * apart) + own
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)  # float32 against float64


def test_a_student_comes_close_to_its_teacher(teacher):
    student = tiny_cnn()
    compiled(tfc.distill(student, teacher, student_weight=0.0)).fit(X, Y, epochs=12, batch_size=32, verbose=0)
    same = np.mean(student.predict(X, verbose=0).argmax(1) == teacher.predict(X, verbose=0).argmax(1))
    assert same > 0.9


def test_features_of_other_widths_are_projected(teacher):
    student = tiny_cnn()
    distiller = compiled(tfc.distill(student, teacher, features={"stem_relu": "features"}, feature_weight=2.0))
    assert [layer.kernel.shape for layer in distiller.projections] == [(8, 32)]
    before = np.asarray(distiller.projections[0].kernel).copy()
    history = distiller.fit(X, Y, epochs=4, batch_size=32, verbose=0, validation_data=(X, Y))
    assert history.history["distillation_loss"][-1] < history.history["distillation_loss"][0]
    assert not np.allclose(before, np.asarray(distiller.projections[0].kernel))
    assert "call" not in vars(student.get_layer("stem_relu"))


def test_all_callbacks_work_on_the_student(teacher):
    student = tiny_cnn()
    qat = tfc.QuantizationAwareTraining(begin_epoch=2)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=24), frequency=2)
    distiller = compiled(tfc.distill(student, teacher, features={"stem_relu": "features"}))
    distiller.fit(X, Y, epochs=8, batch_size=32, verbose=0, callbacks=[pruning, qat])
    assert np.mean(np.asarray(student.get_layer("pointwise").kernel) == 0) == 0.5
    assert all(variable.constraint is None for variable in student.trainable_variables)
    result = tfc.convert(student, target="cpu-int8-float-io")
    assert result.points.trained > 5
    file = next(iter(open_model(result.tflite).run({"image": X}).values()))
    fake = distiller.predict(X, verbose=0, callbacks=[qat])
    assert np.mean(file.argmax(1) == fake.argmax(1)) > 0.99
    assert not np.allclose(student.predict(X, verbose=0), fake)  # the student itself is the float model


def test_a_checkpoint_is_the_students_file(teacher, tmp_path):
    """A distiller's own would bring the teacher and code along, and convert refused it."""
    path = tmp_path / "d.keras"
    student = tiny_cnn()
    distiller = compiled(tfc.distill(student, teacher, features={"stem_relu": "features"}))
    callbacks = [tfc.QuantizationAwareTraining(), keras.callbacks.ModelCheckpoint(path)]
    distiller.fit(X, Y, epochs=2, batch_size=64, verbose=0, callbacks=callbacks)
    loaded = keras.models.load_model(path)
    assert loaded.to_json() == student.to_json()
    assert np.array_equal(loaded.predict(X, verbose=0), student.predict(X, verbose=0))
    result = tfc.convert(path, target="cpu-int8")
    assert result.points.trained > 5
    assert result.points.calibrated == 0


def test_channel_pruning_and_penalties_work_on_the_student(teacher):
    keras.utils.set_random_seed(0)
    student = tiny_cnn()
    penalty = tfc.L1Penalty(0.1)
    distiller = compiled(tfc.distill(student, teacher))
    distiller.fit(X, Y, epochs=2, verbose=0, callbacks=[penalty])
    with_penalty = np.abs(np.asarray(student.get_layer("stem_norm").gamma)).mean()
    other = tiny_cnn()
    compiled(tfc.distill(other, teacher)).fit(X, Y, epochs=2, verbose=0)
    assert with_penalty < np.abs(np.asarray(other.get_layer("stem_norm").gamma)).mean()
    pruning = tfc.ChannelPruning(0.5, multiple_of=1, frequency=1)
    distiller.fit(X, Y, verbose=0, callbacks=[pruning])
    assert tfc.remove_channels(student, multiple_of=1).get_layer("stem").filters == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0}, ValueError, "temperature must be a number above 0"),
        ({"student_weight": 1.5}, ValueError, "student_weight must be"),
        ({"feature_weight": 0}, ValueError, "feature_weight must be"),
        ({"features": {"nothing": "features"}}, ValueError, "must name layers. Received: 'nothing' of the student"),
        ({"features": {"pool": "features"}}, ValueError, "same size but for channels"),
    ],
    ids=str,
)
def test_wrong_arguments(teacher, options, error, message):
    with pytest.raises(error, match=message):
        tfc.distill(tiny_cnn(), teacher, **options)


def test_models_that_do_not_fit(teacher):
    with pytest.raises(TrainingError, match="student must be built"):
        tfc.distill(keras.Sequential([keras.layers.Dense(3)]), teacher)
    with pytest.raises(TrainingError, match="same inputs and outputs"):
        tfc.distill(tiny_cnn(classes=4), teacher)
    with pytest.raises(TrainingError, match="must be a Keras model"):
        tfc.distill("student", teacher)

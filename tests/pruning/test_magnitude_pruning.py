"""The pruning callback in real fits: exact sparsity, zeros that stay, hands off afterwards."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.errors import TrainingError
from tfcompress.layers import weight_averages
from tfcompress.pruning import masks
from tfcompress.pruning.magnitude_pruning import prunable_weights

X, Y = striped_pictures(128)


def fit(model, callbacks, **options):
    return model.fit(X, Y, batch_size=32, verbose=0, callbacks=callbacks, **{"epochs": 2, **options})


@pytest.mark.parametrize("options", [{}, {"jit_compile": False}, {"steps_per_execution": 4}], ids=str)
def test_every_kernel_has_exactly_the_scheduled_zeros(options):
    model = compiled(tiny_cnn(), **options)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.7, end=4), frequency=1)
    history = fit(model, [pruning])
    for variable in prunable_weights(model).values():
        values = variable.numpy()
        assert int((values == 0).sum()) == masks.pruned_count(values.size, 0.7)
    assert history.history["sparsity"][-1] == pytest.approx(0.7, abs=0.01)  # whole weights in small kernels


@pytest.mark.parametrize(
    "schedule",
    [
        tfc.schedules.Constant(0.75, begin=3),
        tfc.schedules.Cosine(final=0.75, end=6),
        tfc.schedules.Join([tfc.schedules.Polynomial(final=0.5, end=3), tfc.schedules.Constant(0.75)], [5]),
        "PolynomialDecay",
    ],
    ids=["Constant", "Cosine", "Join", "PolynomialDecay of TFMOT"],
)
def test_every_schedule_gives_exactly_its_zeros(schedule, request):
    if isinstance(schedule, str):
        decay = getattr(request.getfixturevalue("toolkit_schedules"), schedule)
        schedule = decay(0.0, 0.75, begin_step=0, end_step=6, power=3, frequency=2)
    model = compiled(tiny_cnn(), jit_compile=False)
    zeros = []
    kernel = model.get_layer("pointwise").kernel
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: zeros.append(int((kernel.numpy() == 0).sum()))
    )
    fit(model, [tfc.MagnitudePruning(schedule, frequency=1), watch])
    resolved = tfc.schedules.resolve(schedule)
    assert zeros == [masks.pruned_count(64, resolved(step)) for step in range(8)]
    for variable in prunable_weights(model).values():
        values = variable.numpy()
        assert int((values == 0).sum()) == masks.pruned_count(values.size, 0.75)


def test_the_model_is_plain_afterwards():
    model = compiled(tiny_cnn())
    before = model.to_json()
    fit(model, [tfc.MagnitudePruning(0.5, frequency=1)])
    assert all(variable.constraint is None for variable in model.trainable_variables)
    assert model.to_json() == before


def test_a_former_constraint_is_kept_and_comes_back():
    constraint = keras.constraints.MaxNorm(0.5, axis=0)
    model = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Flatten(), keras.layers.Dense(3, name="head")])
    kernel = model.get_layer("head").kernel
    kernel.constraint = constraint
    compiled(model)
    fit(model, [tfc.MagnitudePruning(0.5, frequency=1)])
    assert kernel.constraint is constraint
    assert np.linalg.norm(kernel.numpy(), axis=0).max() <= 0.5 + 1e-6  # float32 rounding of the norm
    assert masks.sparsity(kernel.numpy()) == 0.5


def test_a_second_fit_with_the_same_instance_works():
    pruning = tfc.MagnitudePruning(0.5, frequency=1)
    for seed in (0, 1):
        model = compiled(tiny_cnn(seed))
        fit(model, [pruning])
        assert masks.sparsity(model.get_layer("stem").kernel.numpy()) == 0.5


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("pointwise", {"pointwise"}),
        (["point*"], {"pointwise"}),
        (keras.layers.Conv2D, {"stem", "pointwise"}),
        ([keras.layers.Dense, "point*", keras.layers.DepthwiseConv2D], {"pointwise", "depthwise", "logits"}),
        (lambda path, layer: path == "pointwise", {"pointwise"}),
    ],
    ids=["name", "patterns", "type", "types", "predicate"],
)
def test_only_the_chosen_layers_are_pruned(layers, expected):
    model = compiled(tiny_cnn())
    fit(model, [tfc.MagnitudePruning(0.5, layers=layers, frequency=1)], epochs=1)
    found = {name.partition("/")[0]: masks.sparsity(v.numpy()) for name, v in prunable_weights(model).items()}
    assert found == {name: 0.5 if name in expected else 0.0 for name in found}


def test_a_pattern_without_a_match_is_an_error_before_training():
    model = compiled(tiny_cnn())
    with pytest.raises(ValueError, match="must match a layer. Received: 'pontwise'"):
        fit(model, [tfc.MagnitudePruning(0.5, layers="pontwise")])
    assert int(model.optimizer.iterations) == 0


def test_nothing_to_prune_is_an_error():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    model.compile("sgd", "mse")
    with pytest.raises(TrainingError, match="must have a layer to prune"):
        model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0, callbacks=[tfc.MagnitudePruning(0.5)])


def test_a_fit_that_ends_too_early_says_so():
    model = compiled(tiny_cnn())
    with pytest.warns(UserWarning, match="the schedule would reach 80.0%") as caught:
        fit(model, [tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.8, end=1000))], epochs=1)
    assert len(caught) == 1


def test_the_toolkits_schedules_are_accepted_as_they_are(toolkit_schedules):
    model = compiled(tiny_cnn())
    fit(model, [tfc.MagnitudePruning(toolkit_schedules.ConstantSparsity(0.5, begin_step=0, frequency=1), frequency=1)])
    assert masks.sparsity(model.get_layer("stem").kernel.numpy()) == 0.5


@pytest.mark.parametrize("frequency", [0, -1, 1.5, True])
def test_wrong_frequency(frequency):
    with pytest.raises(ValueError, match="frequency must be"):
        tfc.MagnitudePruning(0.5, frequency=frequency)


def kernel_zeros(model):
    kernels = [w for w in model.weights if w.path.endswith("kernel")]
    return [float(np.mean(np.asarray(kernel) == 0)) for kernel in kernels]


def test_averaged_weights_stay_sparse():
    model = tiny_cnn()
    model.compile(keras.optimizers.Adam(3e-3, use_ema=True), "mse")
    x, y = np.random.rand(64, 8, 8, 2).astype("float32"), np.random.rand(64, 3)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[tfc.MagnitudePruning(0.75)])
    assert min(kernel_zeros(model)) >= 0.74


@pytest.mark.parametrize("stop_first", [True, False], ids=["stop, pruning", "pruning, stop"])
def test_dense_weights_that_another_callback_restores_are_masked_with_one_warning(stop_first):
    model = compiled(tiny_cnn())
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)  # the first epoch
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, begin=0, end=9), frequency=1)
    x, y = striped_pictures(64)
    with pytest.warns(UserWarning, match="Wrap it in tfcompress.after_schedule") as caught:
        model.fit(x, y, epochs=5, verbose=0, callbacks=[stop, pruning] if stop_first else [pruning, stop])
    assert len(caught) == 1
    assert min(kernel_zeros(model)) >= 0.74
    assert all(variable.constraint is None for variable in model.trainable_variables)
    model.fit(x, y, epochs=1, verbose=0)  # nothing looks at later fits
    assert max(kernel_zeros(model)) < 0.5


def test_moving_averages_have_the_zeros_too():
    """Exactly those of the weights, at every step, also while the masks still move."""
    model = tiny_cnn()
    model.compile(keras.optimizers.Adam(3e-3, use_ema=True), "mse")
    x, y = np.random.rand(64, 8, 8, 2).astype("float32"), np.random.rand(64, 3)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, end=6), frequency=1)
    seen = []

    def watch(batch, logs):
        for kernel, average in weight_averages.pairs(model.optimizer):
            if kernel.path.endswith("kernel"):
                seen.append(np.array_equal(np.asarray(kernel) == 0, np.asarray(average) == 0))

    model.fit(
        x, y, batch_size=16, epochs=2, verbose=0,
        callbacks=[pruning, keras.callbacks.LambdaCallback(on_train_batch_end=watch)],
    )  # fmt: skip
    assert len(seen) == 8 * 4
    assert all(seen)


def test_sparsity_by_layer_goes_to_history_and_tensorboard(tmp_path):
    """The event file is read back by TensorFlow's own reader of records."""
    from tensorflow.core.util import event_pb2
    from tensorflow.data import TFRecordDataset

    model = compiled(tiny_cnn())
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    history = fit(model, [tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=6), frequency=1), board])
    files = list((tmp_path / "train").glob("events.*"))
    written = {}
    for record in TFRecordDataset([str(file) for file in files]).as_numpy_iterator():
        for value in event_pb2.Event.FromString(record).summary.value:
            written.setdefault(value.tag, []).append(float(np.frombuffer(value.tensor.tensor_content, np.float32)[0]))
    for name in ["sparsity", *(f"sparsity/{name}" for name in prunable_weights(model))]:
        assert written[f"epoch_{name}"] == pytest.approx(history.history[name])
        assert 0 < history.history[name][0] < history.history[name][1]
    kernel = model.get_layer("pointwise").kernel.numpy()
    assert history.history["sparsity/pointwise/kernel"][-1] == masks.sparsity(kernel)


def test_a_schedule_begins_anew_in_each_fit():
    class Toolkit:
        def __call__(self, step):
            return step >= 3, 0.5

    pruning = tfc.MagnitudePruning(Toolkit(), frequency=1)
    x, y = striped_pictures(64)
    for seed in range(2):
        model = compiled(tiny_cnn(seed))
        seen = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, m=model, s=seen: s.append(max(kernel_zeros(m)))
        )
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[pruning, watch])
        assert max(seen[:2]) < 0.1 and seen[-1] >= 0.49


def test_what_an_exception_left_does_not_nest():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = compiled(tiny_cnn())
    x, y = striped_pictures(64)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[tfc.MagnitudePruning(0.75), Stop()])
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    model.fit(x, y, epochs=1, verbose=0, callbacks=[tfc.MagnitudePruning(0.25)])
    assert max(kernel_zeros(model)) < 0.3
    assert all(getattr(w, "constraint", None) is None for w in model.trainable_weights)


@pytest.mark.parametrize("schedule", [lambda step: 0.2 if step < 100 else 2.0, [0.1, 0.2, 0.3, 0.4, 0.5].__getitem__])
def test_schedules_need_not_look_far_ahead(schedule):
    model = compiled(tiny_cnn())
    x, y = striped_pictures(64)
    model.fit(x, y, batch_size=16, epochs=1, verbose=0, callbacks=[tfc.MagnitudePruning(schedule, frequency=1)])
    assert all(getattr(w, "constraint", None) is None for w in model.trainable_weights)


@pytest.mark.parametrize(
    "arguments", [{"mask": "magnitude"}, {"layers": 3}, {"layers": []}, {"layers": [3]}, {"layers": int}]
)
def test_wrong_arguments_are_refused_at_once(arguments):
    with pytest.raises(TypeError, match="Received"):
        tfc.MagnitudePruning(0.5, **arguments)


def paced(final, *, end, frequency):
    """Returns a schedule that answers as TFMOT's PolynomialDecay does: whether to prune now, and how much."""
    return lambda step: (step <= end and step % frequency == 0, final * (1 - (1 - min(step / end, 1)) ** 3))


def test_a_schedule_that_says_when_is_asked_at_every_step():
    model = compiled(tiny_cnn())
    fit(model, [tfc.MagnitudePruning(paced(0.75, end=8, frequency=4))], epochs=3)  # 12 steps
    for variable in prunable_weights(model).values():
        values = variable.numpy()
        assert int((values == 0).sum()) == masks.pruned_count(values.size, 0.75)


def test_a_schedule_that_never_says_now_ends_below_what_it_names():
    with pytest.warns(UserWarning, match=r"ended at sparsity 0.0%; the schedule would reach 75.0%"):
        fit(compiled(tiny_cnn()), [tfc.MagnitudePruning(paced(0.75, end=6, frequency=100))])

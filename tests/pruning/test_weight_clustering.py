"""Weight clustering: few values, zeros kept, smaller downloads, constraints in any order."""

import gzip
import warnings

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.errors import TrainingError
from tfcompress.pruning.weight_clustering import centroids
from tfcompress.tflite import flatbuffer

X, Y = striped_pictures(128)


def fit(model, *callbacks, epochs=4):
    model.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def values(model, name):
    return np.asarray(model.get_layer(name).kernel)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"steps_per_execution": 2}], ids=str)
def test_kernels_have_few_values_and_go_on_learning(options):
    model = compiled(tiny_cnn(), **options)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(values(model, "pointwise").copy())
    )
    fit(model, tfc.WeightClustering(6, begin_epoch=1), watch)
    assert len(np.unique(seen[0])) > 6
    assert all(len(np.unique(kernel)) <= 6 for kernel in seen[1:])
    assert not np.array_equal(seen[1], seen[3])
    assert model.get_layer("pointwise").kernel.constraint is None


@pytest.mark.parametrize("first", [0, 1])
def test_zeros_of_pruning_stay_and_count_as_a_cluster(first):
    model = compiled(tiny_cnn())
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=6), frequency=1)
    clustering = tfc.WeightClustering(4)
    callbacks = [pruning, clustering]
    fit(model, callbacks[first], callbacks[1 - first], tfc.QuantizationAwareTraining(begin_epoch=2), epochs=6)
    kernel = values(model, "pointwise")
    assert np.mean(kernel == 0) == 0.5
    assert len(np.unique(kernel)) <= 4
    assert all(variable.constraint is None for variable in model.trainable_variables)
    assert tfc.convert(model, target="cpu-int8").float_tensors == ()


def test_clustering_waits_for_a_schedule_that_knows_no_step_beyond_the_fit():
    table = [min(0.5, 0.05 * step) for step in range(4 * 6)]
    model = compiled(tiny_cnn())
    pruning = tfc.MagnitudePruning(lambda step: table[step], frequency=1)
    begun = []
    clustering = tfc.WeightClustering(4)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: begun.append(clustering.settled()))
    fit(model, clustering, pruning, watch, epochs=6)
    assert begun == [False, False, False, True, True, True]  # 0.5 comes in step 10, of the third epoch
    kernel = values(model, "pointwise")
    assert np.mean(kernel == 0) == 0.5
    assert len(np.unique(kernel)) <= 4


def test_the_file_compresses_better():
    keras.utils.set_random_seed(0)

    def build():
        keras.utils.set_random_seed(0)
        layers = keras.layers
        return compiled(
            keras.Sequential([keras.Input((8, 8, 2)), layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(3)])
        )

    sizes = []
    for callbacks in ([], [tfc.WeightClustering(8)]):
        model = build()
        fit(model, *callbacks)
        tflite = tfc.convert(model, target="cpu-int8", representative_data=X).tflite
        sizes.append(len(gzip.compress(tflite)))
    assert sizes[1] < 0.75 * sizes[0]


def test_clusters_and_zeros_survive_quantization_and_conversion():
    """What a kernel's few values are in the file: a channel has a scale of its own, and so its own few integers."""
    sizes = []
    for clusters in (None, 8):
        keras.utils.set_random_seed(0)
        layers = keras.layers
        model = compiled(
            keras.Sequential(
                [
                    keras.Input((8, 8, 2)),
                    layers.Conv2D(32, 3, use_bias=False, name="stem"),
                    layers.BatchNormalization(),
                    layers.ReLU(),
                    layers.Conv2D(32, 3, activation="relu", name="conv"),
                    layers.Flatten(),
                    layers.Dense(3),
                ]
            ),
            jit_compile=False,
        )
        fit(model, tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=8), frequency=1), epochs=2)
        clustering = [tfc.WeightClustering(clusters)] if clusters else []
        pruning, qat = tfc.MagnitudePruning(0.5, frequency=1), tfc.QuantizationAwareTraining(begin_epoch=1)
        fit(model, pruning, *clustering, qat)
        file = tfc.convert(model, target="cpu-int8")
        assert file.points.calibrated == 0
        sizes.append(len(gzip.compress(file.tflite)))
        parsed = flatbuffer.parse(file.tflite)
        tensors = parsed.subgraphs[0].tensors
        kernels = [flatbuffer.constant(parsed, t) for t in tensors if t.shape is not None and len(t.shape) == 4]
        kernels = [kernel for kernel in kernels if kernel is not None]
        assert sorted(kernel.shape for kernel in kernels) == [(32, 3, 3, 2), (32, 3, 3, 32)]
        for kernel in kernels:
            assert np.mean(kernel == 0) >= 0.5
            most = max(len(np.unique(channel)) for channel in kernel)
            assert most <= clusters if clusters else most > 8
    assert sizes[1] < 0.85 * sizes[0]


def test_only_named_layers():
    model = fit(compiled(tiny_cnn()), tfc.WeightClustering(3, layers="point*"))
    assert len(np.unique(values(model, "pointwise"))) == 3
    assert len(np.unique(values(model, "stem"))) > 3


def test_clustering_after_the_last_epoch_says_so_in_one_warning():
    with pytest.warns(UserWarning, match="Received: begin_epoch=9, and no weight was clustered") as caught:
        fit(compiled(tiny_cnn(), jit_compile=False), tfc.WeightClustering(4, begin_epoch=9), epochs=2)
    assert len(caught) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_clustering_that_waits_in_vain_says_so_beside_pruning(first):
    callbacks = [tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=1000)), tfc.WeightClustering(4)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(compiled(tiny_cnn(), jit_compile=False), callbacks[first], callbacks[1 - first], epochs=2)
    messages = sorted(str(each.message) for each in caught if each.category is UserWarning)
    assert len(messages) == 2
    assert "the schedule would reach 50.0%" in messages[0]
    assert "Received: pruning that had not reached its final sparsity" in messages[1]


@pytest.mark.parametrize(
    ("protect", "dense"), [("first", {"stem"}), (("first", "last"), {"stem", "logits"})], ids=["first", "both"]
)
def test_first_and_last_layer_are_protected_on_request(protect, dense):
    model = fit(compiled(tiny_cnn(), jit_compile=False), tfc.WeightClustering(3, protect=protect), epochs=1)
    counts = {name: len(np.unique(values(model, name))) for name in ("stem", "pointwise", "logits")}
    assert {name for name, count in counts.items() if count > 3} == dense
    with pytest.raises(
        TrainingError, match="beside the protected ones. Received: .*, of which logits keep their values"
    ):
        fit(compiled(tiny_cnn()), tfc.WeightClustering(3, layers="logits", protect="last"))


def test_nothing_to_cluster_is_an_error():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    model.compile("sgd", "mse")
    with pytest.raises(TrainingError, match="must have a layer to cluster"):
        model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0, callbacks=[tfc.WeightClustering(4)])


def test_centroids_of_few_values_are_those_values():
    assert centroids(np.array([2.0, 2.0, 7.0]), 8).tolist() == [2.0, 7.0]


@pytest.mark.parametrize("arguments", [{"clusters": 1}, {"clusters": 2.5}, {"begin_epoch": -1}], ids=str)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="must be a whole number"):
        tfc.WeightClustering(**arguments)
    with pytest.raises(ValueError, match="protect must be 'first', 'last' or both"):
        tfc.WeightClustering(protect="middle")
    with pytest.raises(ValueError, match="must match a layer"):
        fit(compiled(tiny_cnn()), tfc.WeightClustering(layers="nothing"))

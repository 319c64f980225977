"""Channel pruning in real fits: emptied channels, then a smaller model, then int8."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures
from tfcompress.errors import TrainingError
from tfcompress.layers import costs
from tfcompress.pruning import channel_groups, rebuilding

X, Y = striped_pictures(256)


def model_with_residual():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 2), name="image")

    def conv(x, width):
        return layers.ReLU()(layers.BatchNormalization(momentum=0.8)(layers.Conv2D(width, 3, padding="same")(x)))

    x = conv(image, 32)
    x = layers.Add()([x, conv(conv(x, 16), 32)])
    return keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"steps_per_execution": 4}], ids=str)
def test_emptied_channels_leave_without_a_trace(options, scope):
    model = compiled(model_with_residual(), **options)
    pruning = tfc.ChannelPruning(tfc.schedules.Polynomial(final=0.5, end=16), frequency=2, scope=scope)
    history = model.fit(X, Y, batch_size=32, epochs=4, verbose=0, callbacks=[pruning])
    if scope == "layer":
        assert history.history["channel_sparsity"][-1] == 0.5
    smaller = tfc.remove_channels(model)
    assert costs.multiply_adds(smaller) < 0.7 * costs.multiply_adds(model)
    assert np.abs(smaller.predict(X, verbose=0) - model.predict(X, verbose=0)).max() < 2e-5
    assert all(variable.constraint is None for variable in model.variables)


def test_zeros_stay_through_quantization_aware_training_and_into_the_file():
    model = compiled(model_with_residual())
    pruning = tfc.ChannelPruning(tfc.schedules.Polynomial(final=0.5, end=16), frequency=2)
    model.fit(X, Y, batch_size=32, epochs=4, verbose=0, callbacks=[pruning])
    smaller = compiled(tfc.remove_channels(model))
    qat = tfc.QuantizationAwareTraining()
    smaller.fit(X, Y, batch_size=32, epochs=6, verbose=0, callbacks=[qat])
    result = tfc.convert(smaller, target="cpu-int8")
    assert result.float_tensors == ()
    whole = tfc.convert(model, target="cpu-int8", representative_data=X)
    assert result.size_bytes < 0.8 * whole.size_bytes
    accuracy = smaller.evaluate(X, Y, verbose=0, callbacks=[qat], return_dict=True)["accuracy"]
    assert accuracy > 0.9


def test_only_named_layers_lose_channels():
    model = compiled(model_with_residual())
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    middle = names[1]
    model.fit(X, Y, verbose=0, callbacks=[tfc.ChannelPruning(0.5, layers=middle, frequency=1)])
    smaller = tfc.remove_channels(model)
    assert [smaller.get_layer(name).filters for name in names] == [32, 8, 32]


def test_protected_layers_keep_their_channels():
    """The first convolution's, and those that a residual ties to it; a model's outputs stay in any case."""
    model = compiled(model_with_residual(), jit_compile=False)
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    model.fit(X, Y, verbose=0, callbacks=[tfc.ChannelPruning(0.5, protect=("first", "last"), frequency=1)])
    smaller = tfc.remove_channels(model)
    assert [smaller.get_layer(name).filters for name in names] == [32, 8, 32]
    with pytest.raises(TrainingError, match=f"beside the protected ones. Received: .*, of which {names[0]} keep"):
        model.fit(X, Y, verbose=0, callbacks=[tfc.ChannelPruning(0.5, layers=[names[0], names[2]], protect="first")])


def test_network_slimming_by_batch_norm_scales():
    model = compiled(model_with_residual())
    penalty = tfc.L1Penalty(1e-2)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[penalty])
    gammas = [layer.gamma for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(gamma.regularizer is None for gamma in gammas)
    assert np.mean([np.abs(np.asarray(gamma)).mean() for gamma in gammas]) < 0.98
    first, middle, last = (np.abs(np.asarray(gamma)) for gamma in gammas)
    tied = first / first.mean() + last / last.mean()  # the residual's two ends go together
    least = [np.sort(np.argsort(each)[: len(each) // 2]).tolist() for each in (tied, middle, tied)]
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[tfc.ChannelPruning(0.5, importance="batch_norm", frequency=1)])
    plan = channel_groups.plan(model)
    assert len(rebuilding.emptied(plan, model)) == 24  # half of 32 and of 16
    assert [np.flatnonzero(np.asarray(gamma) == 0).tolist() for gamma in gammas] == least


def test_taylor_importance_prunes_while_training():
    model = compiled(model_with_residual())
    by = tfc.importance.Taylor(X[:64], Y[:64])
    model.fit(X, Y, verbose=0, callbacks=[tfc.ChannelPruning(0.5, importance=by, frequency=4)])
    assert tfc.remove_channels(model).count_params() < 0.6 * model.count_params()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple_of": 0}, "multiple_of must be"),
        ({"scope": "all"}, "scope must be"),
        ({"importance": "size"}, "importance must be one of"),
        ({"frequency": 0}, "frequency must be"),
        ({"protect": "middle"}, "protect must be"),
        ({"schedule": 75}, "Write 0.75 for 75 %"),
        ({"schedule": -0.5}, "must be a fraction"),
    ],
    ids=str,
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        tfc.ChannelPruning(**{"schedule": 0.5, **options})


def test_wrong_models_are_refused_before_training():
    model = compiled(keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]))
    with pytest.raises(TrainingError, match="must have channels that can go"):
        model.fit(X, Y, verbose=0, callbacks=[tfc.ChannelPruning(0.5)])
    model = compiled(model_with_residual())
    with pytest.raises(ValueError, match="must match a layer"):
        model.fit(X, Y, verbose=0, callbacks=[tfc.ChannelPruning(0.5, layers="nothing")])
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("arguments", [{"strength": 0}, {"strength": -1.0}, {"strength": 1.0, "on": "bias"}], ids=str)
def test_wrong_penalties(arguments):
    with pytest.raises(ValueError, match="must be"):
        tfc.L1Penalty(**arguments)

"""Each model of the zoo becomes full int8, loses channels and trains under QAT; its figures are the papers'."""

import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import zoo
from tfcompress.cli import main
from tfcompress.cli.zoo import verdicts
from tfcompress.errors import TrainingError
from tfcompress.layers import costs
from tfcompress.pruning import channel_groups
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.interpreter import open_model

COUNT = 16
BATCH = 8
MILLION = 1e6
# Adding up fewer numbers in another order: float32 rounding of outputs of this size.
ROUNDING = 5e-6
WITHOUT_CHANNELS = {"text_lstm"}  # the units of a recurrent layer are tied to its state: nothing that removal follows


def trainable(model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def samples(model) -> np.ndarray:
    """Smooth pictures or random features, by the model's input: (16, ...) float32 in [-1, 1] or int32 ids."""
    random, given = np.random.default_rng(0), model.inputs[0]
    if "int" in str(given.dtype):
        return random.integers(0, 20, (COUNT, *given.shape[1:])).astype(given.dtype)
    values = random.uniform(-1, 1, (COUNT, *given.shape[1:]))
    for axis in range(1, values.ndim - 1):
        values = (values + np.roll(values, 1, axis) + np.roll(values, 2, axis)) / 2
    return np.clip(values, -1, 1).astype(np.float32)


def small(name):
    """A small variant with BatchNorm statistics of real activations, and samples for it."""
    keras.utils.set_random_seed(0)
    model = zoo.build(name, **zoo.find(name).small)
    x = samples(model)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(x, training=True)
    random = np.random.default_rng(1)
    for layer in norms:
        layer.momentum = 0.9
        layer.beta.assign(random.normal(0, 0.3, layer.beta.shape))
    return model, x


def ready(model, x):
    """Compiles the model; returns what it is to answer: random classes, or what it answers now."""
    is_classes = isinstance(model.output_shape, tuple) and model.output_shape[1:] in ((2,), (10,), (12,))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if is_classes else "mse"
    # eager: tracing these graphs of hundreds of layers would take most of the time of the few steps
    model.compile(keras.optimizers.Adam(1e-4), loss, run_eagerly=True)
    if is_classes:
        return np.random.default_rng(2).integers(0, model.output_shape[-1], COUNT)
    return model.predict(x, verbose=0)


def outputs(answers) -> list[np.ndarray]:
    """The outputs of a model or a file, the largest first."""
    return sorted(keras.tree.flatten(answers), key=np.size, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.filterwarnings("ignore:Representative data must look like")  # 16 made-up samples
@pytest.mark.filterwarnings("ignore:Some layers stay in float while training:UserWarning")  # the cell of an LSTM
def test_model(name):
    model, x = small(name)
    y, before = ready(model, x), costs.multiply_adds(model)
    pruning, qat = tfc.ChannelPruning(0.5), tfc.QuantizationAwareTraining()
    if name in WITHOUT_CHANNELS:
        with pytest.raises(TrainingError, match="must have channels that can go"):
            model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[pruning])
        pruning = tfc.MagnitudePruning(0.5, frequency=1)
    history = model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[pruning, qat]).history
    assert np.all(np.isfinite(history["loss"]))
    assert history["sparsity" if name in WITHOUT_CHANNELS else "channel_sparsity"][-1] > 0.2
    # the samples are for what lies inside attention and recurrent layers, which training does not see
    result = tfc.convert(model, target="cpu-int8", representative_data=x)
    assert result.float_tensors == ()
    file = open_model(result.tflite)
    integer = outputs(file.run({file.inputs[0].name: x}))
    least = 0.95 if qat.plan.skipped else 0.99  # what training does not see rounds in the file only
    for got, wanted in zip(integer, outputs(model.predict(x, verbose=0, callbacks=[qat])), strict=True):
        assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > least

    if name in WITHOUT_CHANNELS:
        return
    smaller = tfc.remove_channels(model)
    assert tfc.convert(smaller, target="cpu-int8", representative_data=x).float_tensors == ()
    for got, wanted in zip(*(outputs(each.predict(x, verbose=0)) for each in (smaller, model)), strict=True):
        assert np.abs(got - wanted).max() <= ROUNDING * max(1.0, np.abs(wanted).max())
    assert costs.multiply_adds(smaller) < 0.9 * before


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_table_says_what_each_converts_to(name):
    found = verdicts(zoo.find(name))
    assert found.keys() == tfc.TARGETS.keys()
    assert {target for target, refusal in found.items() if refusal} == set(zoo.find(name).refused), found


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.filterwarnings("ignore:Representative data must look like")
def test_the_model_of_the_table_is_counted_right_and_becomes_full_int8(name):
    """At its full size: a detector with its choice among boxes, the only op whose tensors may be float."""
    entry, model = zoo.find(name), zoo.build(name)
    assert trainable(model) == entry.parameters
    assert costs.multiply_adds(model) == entry.multiply_adds
    assert model.input_shape[1:] == entry.input_shape
    assert model.name == name
    x = samples(model)[:2]
    model(x, training=True)  # moves the statistics of BatchNorm
    result = tfc.convert(model, target="cpu-int8", representative_data=x, **entry.settings())
    parsed = flatbuffer.parse(result.tflite)
    islands = [op for op in parsed.subgraphs[0].operators if flatbuffer.op_name(parsed, op) in entry.float_ops]
    around = {int(tensor) for op in islands for tensor in [*op.inputs, *op.outputs]}
    names = {flatbuffer.tensor_name(parsed.subgraphs[0].tensors[tensor]) for tensor in around}
    assert set(result.float_tensors) <= names
    assert bool(result.float_tensors) == bool(entry.float_ops)
    keras.backend.clear_session()


TORCHVISION = {0.5: 1_366_792, 1.0: 2_278_604, 1.5: 3_503_624, 2.0: 7_393_996}
SHUFFLENET_V2_PRINTED = {0.5: 41, 1.0: 146, 1.5: 299, 2.0: 591}  # table 5 of the paper, in millions
SHUFFLENET_V1_PRINTED = {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}  # table 1 of the paper


@pytest.mark.parametrize("width", TORCHVISION)
def test_shufflenet_v2_has_the_parameters_of_torchvision(width):
    assert trainable(zoo.build("shufflenet_v2", width=width)) == TORCHVISION[width]


@pytest.mark.parametrize("width", SHUFFLENET_V2_PRINTED)
def test_shufflenet_v2_has_the_multiply_adds_of_its_paper(width):
    model = zoo.build("shufflenet_v2", width=width, even=False)
    average = np.prod(model.get_layer("average").input.shape[1:])  # the paper counts the sums of the last average too
    assert round((costs.multiply_adds(model) + average) / MILLION) == SHUFFLENET_V2_PRINTED[width]
    same = zoo.build("shufflenet_v2", width=width)
    assert costs.multiply_adds(same) == pytest.approx(SHUFFLENET_V2_PRINTED[width] * MILLION, rel=0.015)


@pytest.mark.parametrize("groups", SHUFFLENET_V1_PRINTED)
def test_shufflenet_v1_has_the_complexity_of_its_paper(groups):
    counts = costs.multiply_adds_by_layer(zoo.build("shufflenet_v1", groups=groups))
    assert round((sum(counts.values()) - counts["logits"]) / MILLION) == SHUFFLENET_V1_PRINTED[groups]


def test_other_widths_of_shufflenet_v1_have_the_complexity_of_its_paper():
    printed = {0.25: 13, 0.5: 38, 1.5: 292, 2.0: 524}  # tables 2 and 5 of the paper, three groups; with the last layer
    for width, millions in printed.items():
        assert round(costs.multiply_adds(zoo.build("shufflenet_v1", width=width)) / MILLION) == millions


@pytest.mark.parametrize("groups", SHUFFLENET_V1_PRINTED)
@pytest.mark.parametrize("width", [0.25, 0.5, 1.5, 2.0])
def test_shufflenet_v1_has_every_width_and_number_of_groups(groups, width):
    model = zoo.build("shufflenet_v1", width=width, groups=groups, units=(1, 2), input_shape=(32, 32, 3), classes=10)
    assert model.output_shape == (None, 10)


def test_channel_shuffle_deals_channels_out():
    from tfcompress.zoo.layers import channel_shuffle

    given = keras.Input((1, 1, 6))
    model = keras.Model(given, channel_shuffle(given, 2, name="shuffle"))
    dealt = model(np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6))
    assert np.asarray(dealt).ravel().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_channels_between_group_convolutions_go_in_equal_numbers(groups):
    keras.utils.set_random_seed(0)
    model = zoo.build("shufflenet_v1", groups=groups, units=(2, 1), input_shape=(32, 32, 3), classes=10)
    plan = channel_groups.plan(model)
    shuffled = [block for block in plan.blocks if block.name.endswith("squeeze")]
    assert len(shuffled) == 3
    assert {block.copies for block in shuffled} == {groups**2}
    assert any("cannot lose equal numbers" in reason for reason in plan.kept.values())
    smaller = tfc.remove_channels(model, sparsity=0.5)
    for block in shuffled:
        assert smaller.get_layer(block.name).filters < model.get_layer(block.name).filters
        assert smaller.get_layer(block.name).filters % groups == 0


def test_resnet_8_is_that_of_mlperf_tiny(shared_data):
    """With the benchmark's own weights the logits are those of its float file."""
    import h5py

    model = zoo.build("resnet_8")
    with h5py.File(shared_data / "mlperf_resnet8" / "pretrainedResnet.h5") as stored:
        _load(model, stored["model_weights"])
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as pictures:
        x, y = pictures["x_test"].astype(np.float32), pictures["y_test"]
    logits = model.predict(x, verbose=0)
    assert np.mean(logits.argmax(1) == y.ravel()) == pytest.approx(0.888, abs=0.002)
    file = open_model((shared_data / "mlperf_resnet8" / "pretrainedResnet.tflite").read_bytes())
    wanted = next(iter(file.run({file.inputs[0].name: x[:32]}).values()))
    assert np.abs(keras.ops.softmax(logits[:32]).numpy() - wanted).max() < 1e-4


def test_autoencoder_is_that_of_mlperf_tiny(shared_data):
    """With the benchmark's own weights it restores what their file, converted, restores."""
    import h5py

    model, path = zoo.build("autoencoder"), shared_data / "mlperf_ad" / "ad01.h5"
    with h5py.File(path) as stored:
        _load(model, stored["model_weights"])
    x = np.random.default_rng(0).normal(-20, 10, (8, 640)).astype(np.float32)
    file = open_model(tfc.convert(path, target="float32").tflite)
    wanted = next(iter(file.run({file.inputs[0].name: x}).values()))
    assert np.abs(model.predict(x, verbose=0) - wanted).max() < 1e-4 * np.abs(wanted).max()


def _load(model, groups) -> None:
    """Sets the weights of a Keras 2 file, layer by layer in order of their numbers; the kinds must be the same."""

    def number(name: str) -> int:
        digits = name.rpartition("_")[2]
        return int(digits) if digits.isdigit() else 0

    for kind, prefix in ((layers.Conv2D, "conv2d"), (layers.BatchNormalization, "batch_norm"), (layers.Dense, "dense")):
        names = sorted((name for name in groups if name.startswith(prefix)), key=number)
        ours = [layer for layer in model.layers if isinstance(layer, kind)]
        assert len(names) == len(ours), (prefix, len(names), len(ours))
        for name, layer in zip(names, ours, strict=True):
            values = {path.rpartition("/")[2]: groups[name][path][:] for path in _paths(groups[name])}
            layer.set_weights([values[f"{weight.name}:0"] for weight in layer.weights])


def _paths(group) -> list[str]:
    import h5py

    found = []
    group.visititems(lambda path, item: found.append(path) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("shufflenet", {}, ValueError, "Did you mean 'shufflenet_v"),
        ("resnet_50", {}, ValueError, "Did you mean 'resnet_"),
        (3, {}, TypeError, "must be a string"),
        ("resnet_8", {"alpha": 2}, TypeError, "must be among input_shape, classes, width, name"),
        ("shufflenet_v2", {"width": 0.7}, ValueError, "width must be one of 0.5, 1.0, 1.5, 2.0"),
        ("shufflenet_v1", {"groups": 5}, ValueError, "groups must be one of 1, 2, 3, 4, 8"),
        ("shufflenet_v1", {"width": 0.31}, ValueError, "Write 0.5 or 1.0"),
        ("resnet_20", {"depth": 21}, ValueError, "depth must be 6n \\+ 2"),
    ],
    ids=str,
)
def test_wrong_use(name, arguments, error, message):
    with pytest.raises(error, match=message):
        tfc.zoo.build(name, **arguments)


def test_the_command_lists_every_model_without_a_framework(tmp_path):
    code = (
        "import sys; from tfcompress.cli import main; code = main(['zoo', '--json=zoo.json'])\n"
        "print([m for m in ('keras', 'tensorflow') if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert max(map(len, lines)) <= 80
    firsts = [line.split()[0] for line in lines if line[:1] not in ("", " ")]  # a cell may go on below
    assert [name for name in firsts if name in zoo.MODELS] == list(zoo.MODELS)
    record = {each["name"]: each for each in json.loads((tmp_path / "zoo.json").read_text())}
    assert record["shufflenet_v2"]["parameters"] == TORCHVISION[1.0]
    assert "edge-tpu" in record["shufflenet_v2"]["refused"]


def test_the_command_shows_and_checks_one_model(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["zoo", "--model=autoencoder", "--check"]) == 0
    text = capsys.readouterr().out
    assert "267,928" in text
    assert "edge-tpu           converts" in text
    assert main(["zoo", "--model=autoencodr"]) == 1
    assert "Did you mean 'autoencoder'" in capsys.readouterr().err
    assert main(["zoo", "--check"]) == 2

"""PyTorch models to float flatbuffers and on to int8, against PyTorch's own answers."""

import os
import zipfile

import numpy as np
import pytest

from tfcompress.calibration import calibrator
from tfcompress.conversion import verification
from tfcompress.data import loading
from tfcompress.errors import ConversionError, ModelError
from tfcompress.lowering.pytorch import export
from tfcompress.quantization import quantizers
from tfcompress.quantization.targets import TARGETS
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.interpreter import open_model

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")
pytest.importorskip("litert_torch", reason="the extra [torch] is not installed")

import torch_models

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore:.*(torch.jit|Lite Interpreter):DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

FLOAT_TOLERANCE = 1e-4  # sums in another order, relative to the largest logit


class Small(torch.nn.Module):
    """One convolution and a head: enough where the model does not matter."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, image):
        return self.fc(torch.relu(self.conv(image)).mean((2, 3)))


def seeded(module):
    torch.manual_seed(0)
    return module().eval()


def close(answers, expected):
    assert answers.shape == expected.shape
    assert np.abs(answers - expected).max() <= FLOAT_TOLERANCE * np.abs(expected).max()


def torch_answers(module, images):
    with torch.no_grad():
        return module(images).numpy()


def ops(content):
    return flatbuffer.op_counts(flatbuffer.parse(content))


MODELS = {
    "depthwise": lambda: torch_models.DepthwiseNet(),
    "resnet18": lambda: torch_models.ResNet18(width=8),
    "shufflenet_v2": lambda: torch_models.ShuffleNetV2(widths=(16, 32, 64, 128, 256), repeats=(2, 3, 2)),
}
TRANSPOSES = {"depthwise": 0, "resnet18": 0, "shufflenet_v2": 7}  # channels last: one for each channel shuffle


@pytest.fixture(scope="module", params=MODELS)
def trained(request):
    """A module that tells ten patterns apart, its pictures and its float flatbuffer with channels last."""
    torch.manual_seed(0)
    module, images = torch_models.train_on_patterns(MODELS[request.param](), size=32, steps=80)
    lowered = export.lower_torch(module, sample_inputs=images[:1], nhwc=True)
    return request.param, module, images, lowered


def test_float_answers_are_those_of_pytorch(trained):
    name, module, images, lowered = trained
    expected = torch_answers(module, images)
    fed = {"image": images.numpy().transpose(0, 2, 3, 1).copy()}
    close(open_model(lowered.content).run(fed)["output_0"], expected)
    close(lowered.reference(fed)[0], expected)
    assert [(spec.name, spec.shape) for spec in lowered.inputs] == [("image", (None, 32, 32, 3))]
    assert lowered.outputs == ("output_0",)
    assert not any("batch size" in note for note in lowered.notes)
    assert export.count_transposes(lowered.content) == TRANSPOSES[name]
    names = [flatbuffer.tensor_name(tensor) for tensor in flatbuffer.parse(lowered.content).subgraphs[0].tensors]
    assert len(set(names)) == len(names)


def test_full_int8_agrees_with_pytorch(trained):
    _, module, images, lowered = trained
    fed = {"image": images.numpy().transpose(0, 2, 3, 1).copy()}
    samples = loading.load_representative({"image": fed["image"][:128]}, lowered.inputs)
    ranges = calibrator.calibrate(lowered.content, samples).ranges
    complete = quantizers.complete_ranges(lowered.content, ranges)
    finished = quantizers.quantize(lowered.content, complete, TARGETS["cpu-int8"])
    assert verification.walk(finished).float_tensors == ()
    parity = verification.parity(finished, lowered.outputs, lowered.reference(fed), fed)
    assert parity.mean_steps <= 0.8  # half a step is rounding; 0.35 to 0.55 were seen
    assert parity.argmax_agreement >= 0.99
    assert len(np.unique(torch_answers(module, images).argmax(1))) >= 8  # the agreement is not about one class


def test_channels_first_is_the_default():
    module, images = seeded(Small), torch.randn(5, 3, 8, 8)
    lowered = export.lower_torch(module, input_shapes={"image": (None, 3, 8, 8)})
    assert lowered.inputs[0].shape == (None, 3, 8, 8)
    assert export.count_transposes(lowered.content) == 1
    close(open_model(lowered.content).run(images.numpy())["output_0"], torch_answers(module, images))


def test_a_fixed_batch_of_one_is_kept_and_calibrates():
    module, images = seeded(Small), torch.randn(9, 3, 8, 8)
    lowered = export.lower_torch(module, input_shapes={"image": (1, 3, 8, 8)})
    assert lowered.inputs[0].shape == (1, 3, 8, 8)
    measured = calibrator.calibrate(lowered.content, loading.load_representative(images.numpy(), lowered.inputs))
    expected = torch_answers(module, images)
    assert measured.samples == 9
    assert measured.ranges["output_0"] == pytest.approx((min(expected.min(), 0), max(expected.max(), 0)), rel=1e-4)


def test_a_model_that_mixes_its_samples_keeps_its_batch_and_says_so():
    class Mixing(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x) - x.sum(0, keepdim=True)

    lowered = export.lower_torch(Mixing(), sample_inputs=torch.ones(1, 4))
    assert lowered.inputs[0].shape == (1, 4)
    assert "batch size 1" in lowered.notes[0]


def test_training_mode_is_given_back_and_does_not_enter_the_file():
    module = seeded(lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.9)))
    module.train()
    module[1].eval()
    x = torch.randn(3, 4)
    lowered = export.lower_torch(module, sample_inputs=x)
    assert (module.training, module[0].training, module[1].training) == (True, True, False)
    with torch.no_grad():
        close(open_model(lowered.content).run(x.numpy())["output_0"], module[0](x).numpy())


def test_inputs_and_outputs_keep_their_names():
    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(10, 4)

        def forward(self, tokens, weight, scale=2.0):
            words = self.table(tokens) * weight[:, :, None]
            return {"sum": words.sum(1) * scale, "largest": words.amax(1)}

    module = seeded(Named)
    tokens = torch.randint(0, 10, (4, 6))
    weight = torch.rand(4, 6)
    lowered = export.lower_torch(module, sample_inputs={"tokens": tokens, "weight": weight})
    fed = {"tokens": tokens.numpy().astype(np.int32), "weight": weight.numpy()}
    assert {spec.name: spec.dtype.name for spec in lowered.inputs} == {"tokens": "int32", "weight": "float32"}
    assert sorted(lowered.outputs) == ["largest", "sum"]
    model = open_model(lowered.content)
    reference = dict(zip(lowered.outputs, lowered.reference(fed), strict=True))
    for name, answer in model.run(fed).items():
        with torch.no_grad():
            close(answer, module(tokens, weight)[name].numpy())
        close(reference[name], answer)


def test_the_modules_are_those_of_the_papers():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(torch_models.ResNet18(1000)) == 11_689_512  # torchvision's
    assert count(torch_models.ShuffleNetV2(1000, (24, 116, 232, 464, 1024))) == 2_278_604


class Pool(torch.nn.Module):
    def __init__(self, padding):
        super().__init__()
        self.pool = torch.nn.MaxPool2d(3, 2, padding)

    def forward(self, x):
        return self.pool(x)


def test_max_pooling_over_negative_values_needs_no_infinity():
    module, x = Pool(1), torch.randn(2, 3, 9, 8) - 5
    lowered = export.lower_torch(module, sample_inputs=x, nhwc=True)
    answer = open_model(lowered.content).run(x.numpy().transpose(0, 2, 3, 1).copy())["output_0"]
    assert "PADV2" not in ops(lowered.content)
    np.testing.assert_array_equal(answer, module(x).numpy())


def test_what_litert_torch_translates_wrongly_is_refused():
    with pytest.raises(ConversionError, match="must answer as the PyTorch model does"):
        export.lower_torch(Pool((1, 0)), sample_inputs=torch.randn(2, 3, 9, 8))


def test_exported_program_brings_its_example(tmp_path):
    module, images = seeded(Small), torch.randn(4, 3, 8, 8)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (images,), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, tmp_path / "model.pt2")
    assert export.detect(tmp_path / "model.pt2") == "pt2"
    lowered = export.lower_torch(tmp_path / "model.pt2")
    assert lowered.inputs[0].name == "image"
    assert lowered.inputs[0].shape == (None, 3, 8, 8)
    close(open_model(lowered.content).run(images.numpy())["output_0"], torch_answers(module, images))
    close(lowered.reference({"image": images.numpy()})[0], torch_answers(module, images))


def test_a_program_with_a_batch_of_its_own_keeps_it():
    module, images = seeded(Small), torch.randn(4, 3, 8, 8)
    lowered = export.lower_torch(torch.export.export(module, (images,)))
    assert lowered.inputs[0].shape == (4, 3, 8, 8)
    assert "batch size 4" in lowered.notes[0]
    six = torch.randn(6, 3, 8, 8)
    close(lowered.reference({"image": six.numpy()})[0], torch_answers(module, six))
    close(open_model(lowered.content).run(six.numpy())["output_0"], torch_answers(module, six))


@pytest.mark.parametrize("how", ["trace", "script", "mobile"])
def test_torchscript_of_the_pytorch_mobile_era(tmp_path, how):
    torch.manual_seed(0)
    module = torch_models.ResNet18(width=4) if how != "script" else Small()
    module = torch_models.with_statistics(module, torch.randn(16, 3, 32, 32), passes=2)
    images = torch.randn(5, 3, 32, 32)
    path = tmp_path / "model.pt"
    if how == "script":
        torch.jit.script(module).save(path)
    else:
        traced = torch.jit.trace(module, images[:1])
        traced.save(path) if how == "trace" else traced._save_for_lite_interpreter(str(path))
    assert export.detect(path) == "torchscript"
    with pytest.raises(ModelError, match=r"a TorchScript archive.*--allow_unsafe"):
        export.lower_torch(path, input_shapes={"image": (None, 3, 32, 32)}, nhwc=True)
    lowered = export.lower_torch(path, input_shapes={"image": (None, 3, 32, 32)}, nhwc=True, allow_unsafe=True)
    fed = images.numpy().transpose(0, 2, 3, 1).copy()
    close(open_model(lowered.content).run(fed)["output_0"], torch_answers(module, images))
    assert export.count_transposes(lowered.content) == 0


def test_torchscript_that_cannot_be_read_says_how_to_export(tmp_path):
    @torch.jit.script
    def loop(x: torch.Tensor) -> torch.Tensor:
        names = ["a", "b"]
        while bool(x.sum() > 0):
            x = x - len(names)
        return x

    class Looping(torch.nn.Module):
        def forward(self, x):
            return loop(x)

    torch.jit.script(Looping()).save(tmp_path / "loop.pt")
    with pytest.raises((ModelError, ConversionError), match="loop.pt") as caught:
        export.lower_torch(tmp_path / "loop.pt", input_shapes={"x": (1, 4)}, allow_unsafe=True)
    assert "\n" not in str(caught.value)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_are_not_run(tmp_path):
    trap, path = tmp_path / "trapped", tmp_path / "model.pt"
    torch.save(Trap(str(trap)), path)
    with pytest.raises(ModelError, match="must not bring code along.*--allow_unsafe"):
        export.lower_torch(path, input_shapes={"x": (1, 4)})
    module, images = seeded(Small), torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(module, (images,)), tmp_path / "good.pt2")
    with zipfile.ZipFile(tmp_path / "good.pt2") as old, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as new:
        for name in old.namelist():
            is_pickle = name.endswith("sample_inputs/model.pt")
            new.writestr(name, path.read_bytes() if is_pickle else old.read(name))
    with pytest.raises(ModelError, match="must not bring code along"):
        export.lower_torch(tmp_path / "bad.pt2")
    assert not trap.exists()


def test_a_pickled_module_needs_allow_unsafe(tmp_path):
    module, images = seeded(Small), torch.randn(3, 3, 8, 8)
    torch.save(module, tmp_path / "module.pth")
    with pytest.raises(ModelError, match="Small"):
        export.lower_torch(tmp_path / "module.pth", sample_inputs=images)
    lowered = export.lower_torch(tmp_path / "module.pth", sample_inputs=images, allow_unsafe=True)
    close(open_model(lowered.content).run(images.numpy())["output_0"], torch_answers(module, images))


def test_weights_without_a_model_are_called_so(tmp_path):
    torch.save(seeded(Small).state_dict(), tmp_path / "weights.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(
        ModelError, match=r"a state_dict of 4 tensors, the first conv\.weight \(4, 3, 3, 3\).*load_state_dict"
    ):
        export.lower_torch(tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="a dictionary with epoch"):
        export.lower_torch(tmp_path / "other.pth")


def test_damaged_files_are_refused(tmp_path):
    module, images = seeded(Small), torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(module, (images,)), tmp_path / "model.pt2")
    torch.jit.trace(module, images).save(tmp_path / "model.pt")
    for name in ("model.pt2", "model.pt"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match="model") as caught:
            export.lower_torch(tmp_path / name, input_shapes={"image": (1, 3, 8, 8)})
        assert "\n" not in str(caught.value)


def nothing(**shapes):
    return {"input_shapes": shapes}


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, r"exported on an example.*--input_shape=image:1,3,224,224"),
        (nothing(picture=(1, 3, 8, 8)), "one example. Received: picture for the inputs image"),
        (nothing(image=(1, 3, None, 8)), "Only the batch axis"),
        ({"sample_inputs": (torch.zeros(1, 3, 8, 8), torch.zeros(1))}, "one example"),
    ],
)
def test_wrong_examples_are_named(given, rule):
    with pytest.raises(ModelError, match=rule):
        export.lower_torch(seeded(Small), **given)


@pytest.mark.parametrize("form", ["module", "torchscript"])
def test_a_shape_that_is_channels_last_is_given_the_other_way_round(tmp_path, form):
    model = seeded(Small)
    if form == "torchscript":
        torch.jit.trace(model, torch.zeros(1, 3, 8, 8)).save(tmp_path / "model.pt")
        model = tmp_path / "model.pt"
    with pytest.raises(
        ModelError, match=r"must run on its example.*\(1, 8, 8, 3\).*also with --nhwc: image:1,3,8,8"
    ) as caught:
        export.lower_torch(model, input_shapes={"image": (1, 8, 8, 3)}, nhwc=True, allow_unsafe=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"on image \(1, 5, 8, 8\).*Give the shapes that forward takes"):
        export.lower_torch(model, input_shapes={"image": (1, 5, 8, 8)}, allow_unsafe=True)


def test_models_that_cannot_be_converted_are_named():
    class Deciding(torch.nn.Module):
        def forward(self, x):
            return x if bool(x.sum() > 0) else -x

    with pytest.raises(ConversionError, match="Deciding") as caught:
        export.lower_torch(Deciding(), sample_inputs=torch.ones(1, 4))
    assert "\n" not in str(caught.value)

    module = seeded(Small)
    with torch.no_grad():
        module.fc.weight[0, 0] = float("nan")
    with pytest.raises(ConversionError, match=r"fc\.weight"):
        export.lower_torch(module, sample_inputs=torch.ones(1, 3, 8, 8))
    with pytest.raises(ModelError, match=r"torch\.float16.*float\(\)"):
        export.lower_torch(seeded(Small).half(), sample_inputs=torch.ones(1, 3, 8, 8))
    with pytest.raises(TypeError, match="PyTorch module"):
        export.lower_torch(object())

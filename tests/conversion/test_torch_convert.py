"""PyTorch models through the whole conversion: ``convert`` and the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfcompress import SourceOptions, convert
from tfcompress.errors import ModelError
from tfcompress.lowering import sources
from tfcompress.tflite.interpreter import open_model

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")
pytest.importorskip("litert_torch", reason="the extra [torch] is not installed")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ROOT = Path(__file__).resolve().parents[2]


class DepthwiseCnn(torch.nn.Module):
    """A stem, two depthwise separable blocks with BatchNorm and a head."""

    def __init__(self):
        super().__init__()

        def block(width, out, stride):
            return torch.nn.Sequential(
                torch.nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False),
                torch.nn.BatchNorm2d(width),
                torch.nn.ReLU6(),
                torch.nn.Conv2d(width, out, 1, bias=False),
                torch.nn.BatchNorm2d(out),
                torch.nn.ReLU6(),
            )

        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = torch.nn.Sequential(block(8, 16, 1), block(16, 24, 2))
        self.head = torch.nn.Linear(24, 10)

    def forward(self, image):
        return self.head(self.blocks(torch.relu(self.stem(image))).mean((2, 3)))


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).normal(size=(96, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def module(pictures):
    torch.manual_seed(0)
    module = DepthwiseCnn()
    with torch.no_grad():  # statistics of its own, or every answer is the same
        for _ in range(20):
            module(torch.as_tensor(pictures).permute(0, 3, 1, 2))
    return module.eval()


def expected(module, pictures):
    with torch.no_grad():
        return module(torch.as_tensor(pictures).permute(0, 3, 1, 2)).numpy()


def answers(path_or_bytes, pictures):
    file = open_model(path_or_bytes)
    (result,) = file.run({file.inputs[0].name: pictures}).values()
    return result


def test_a_module_becomes_full_int8(module, pictures):
    result = convert(
        module,
        target="cpu-int8-float-io",
        representative_data=pictures,
        source=SourceOptions(input_shapes={"image": (None, 3, 32, 32)}, nhwc=True),
    )
    assert set(result.float_tensors) == {"image", "output_0"}
    assert "TRANSPOSE" not in result.ops
    assert "TRANSPOSE ops in the float file: 0" in result.notes
    wanted = expected(module, pictures)
    error = answers(result.tflite, pictures) - wanted
    assert 10 * np.log10((wanted**2).mean() / (error**2).mean()) > 25
    assert (
        convert(
            module,
            target="cpu-int8-float-io",
            representative_data=pictures,
            source=SourceOptions(input_shapes={"image": (None, 3, 32, 32)}, nhwc=True),
        ).tflite
        == result.tflite
    )


def test_nothing_is_said_unasked():
    line = (
        "import os, torch, tfcompress as tfc\n"
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()\n"
        "options = tfc.SourceOptions(sample_inputs=(torch.zeros(1, 3, 8, 8),))\n"
        "tfc.convert(model, target='float32', source=options)\n"
        "assert 'LITERT_TORCH_SHOW_PROGRESS' not in os.environ\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", line], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, [text for text in done.stderr.splitlines() if "litert" in text or "torch" in text]) == ("", [])


@pytest.mark.parametrize("target", ["float32", "float16", "dynamic"])
def test_targets_without_integer_arithmetic(module, pictures, target):
    result = convert(module, target=target, source=SourceOptions(input_shapes={"image": (None, 3, 32, 32)}, nhwc=True))
    wanted = expected(module, pictures)
    assert np.abs(answers(result.tflite, pictures) - wanted).max() < 0.05 * np.abs(wanted).max()
    whole = convert(
        module, target="float32", source=SourceOptions(input_shapes={"image": (None, 3, 32, 32)}, nhwc=True)
    )
    assert target == "float32" or len(result.tflite) < 0.9 * len(whole.tflite)


def test_channels_first_is_counted(module, pictures):
    result = convert(module, target="float32", source=SourceOptions(input_shapes={"image": (None, 3, 32, 32)}))
    assert result.notes == ("TRANSPOSE ops in the float file: 1; channels last (--nhwc, nhwc=True) may take fewer",)


def test_the_command_takes_an_exported_program(module, pictures, tmp_path):
    program = torch.export.export(module, (torch.zeros(1, 3, 32, 32),))
    torch.export.save(program, tmp_path / "model.pt2")
    np.save(tmp_path / "pictures.npy", pictures)
    command = [sys.executable, "tools/convert.py", f"--model={tmp_path}/model.pt2", "--target=cpu-int8", "--nhwc"]
    command += [f"--representative_data={tmp_path}/pictures.npy", f"--output={tmp_path}/out.tflite", "--json=-"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["target"]["name"] == "cpu-int8"
    assert any("TRANSPOSE" in note for note in record["notes"])
    same = answers(tmp_path / "out.tflite", pictures).argmax(1) == expected(module, pictures).argmax(1)
    assert same.mean() > 0.9


def test_sample_inputs_come_from_a_file(tmp_path, module, pictures):
    np.savez(tmp_path / "samples.npz", image=pictures[:1].transpose(0, 3, 1, 2))
    result = convert(module, target="float32", source=SourceOptions(sample_inputs=tmp_path / "samples.npz", nhwc=True))
    assert np.allclose(answers(result.tflite, pictures), expected(module, pictures), atol=1e-4)


def test_options_of_pytorch_are_refused_elsewhere(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="nhwc is for PyTorch models"):
        sources.open_source(model, options=SourceOptions(nhwc=True))
    with pytest.raises(ValueError, match="sample_inputs is for PyTorch models"):
        sources.open_source(model, options=SourceOptions(sample_inputs=[1]))
    with pytest.raises(ValueError, match="for the PyTorch model"):
        sources.open_source(torch.nn.Linear(1, 1), options=SourceOptions(signature="other"))
    with pytest.raises(ModelError, match="input_shapes|sample_inputs"):
        convert(torch.nn.Linear(4, 2), target="float32")

"""Whole torch.nn networks through ``tools/convert.py`` to full int8: parity, agreement, TRANSPOSE ops.

Times are no matter of tests: ``benchmarks/pytorch.py`` compares them with those of the same networks built in Keras.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfcompress.tflite.interpreter import open_model

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")
pytest.importorskip("litert_torch", reason="the extra [torch] is not installed")

import torch_models

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64
HALF_WIDTHS = (24, 48, 96, 192, 1024)  # ShuffleNet V2 x0.5, 1,366,792 parameters with 1000 classes
NETWORKS = {
    "resnet18": lambda: torch_models.ResNet18(width=16),
    "shufflenet_v2": lambda: torch_models.ShuffleNetV2(widths=HALF_WIDTHS),
}
TRANSPOSES = {"resnet18": 0, "shufflenet_v2": 16}  # channels last: one for each channel shuffle


def converted(arguments: list[str]) -> dict:
    """Returns the account that ``tools/convert.py`` writes."""
    command = [sys.executable, "tools/convert.py", "--nhwc", "--json=-", *arguments]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_becomes_full_int8_at_the_command_line(name, tmp_path):
    torch.manual_seed(0)
    module, images = torch_models.train_on_patterns(NETWORKS[name](), size=SIZE)
    with torch.no_grad():
        wanted = module(images).numpy()
    pictures = images.numpy().transpose(0, 2, 3, 1).copy()
    np.save(tmp_path / "pictures.npy", pictures[:100])
    torch.export.save(torch.export.export(module, (images[:1],)), tmp_path / "model.pt2")

    whole, small = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    account = converted([f"--model={tmp_path}/model.pt2", "--target=float32", f"--output={whole}"])
    assert any(note.startswith(f"TRANSPOSE ops in the float file: {TRANSPOSES[name]}") for note in account["notes"])
    before = next(iter(open_model(whole).run(pictures).values()))
    np.testing.assert_allclose(before, wanted, atol=1e-4 * np.abs(wanted).max())  # float32 sums in another order

    samples = f"--representative_data={tmp_path}/pictures.npy"
    account = converted([f"--model={tmp_path}/model.pt2", samples, "--target=cpu-int8", f"--output={small}"])
    assert account["float_tensors"] == []
    assert account["ops"].get("TRANSPOSE", 0) == TRANSPOSES[name]
    after = next(iter(open_model(small).run(pictures).values()))
    unseen = slice(100, None)
    assert len(np.unique(wanted[unseen].argmax(1))) >= 8  # the agreement is not about one class
    assert (after[unseen].argmax(1) == wanted[unseen].argmax(1)).mean() >= 0.95  # 0.968 and more seen
    assert small.stat().st_size < 0.35 * whole.stat().st_size

"""What ``import tfcompress`` offers, and that it stays light."""

import subprocess
import sys

import pytest

import tfcompress


@pytest.mark.parametrize("name", tfcompress.__all__)
def test_every_public_name_is_there(name):
    assert getattr(tfcompress, name) is not None
    assert name in dir(tfcompress)


def test_functions_stay_functions_after_their_modules_were_imported():
    code = (
        "import tfcompress.conversion.converter, tfcompress.measurement.measuring, tfcompress as t\n"
        "import tfcompress.cli.measure\n"
        "t.report, t.measure, t.convert\n"
        "print(all(callable(f) for f in (t.report, t.measure, t.convert)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr


def test_import_is_light():
    code = "import sys, tfcompress; print([m for m in ('keras', 'tensorflow', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'convrt'"):
        tfcompress.convrt  # noqa: B018

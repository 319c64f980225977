"""Files are whole or not there, also on a full disk."""

import os
import resource
import subprocess
import sys

import pytest

from tfcompress.errors import OutputError
from tfcompress.system.files import check_writable, write_atomically


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    code = (
        "import resource, signal, sys\n"
        "from tfcompress.errors import OutputError\n"
        "from tfcompress.system.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_atomically(sys.argv[1], bytes(100_000), overwrite=True)\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)
    assert done.stdout.startswith(f"Could not write {path}: "), done.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_new_files_follow_the_users_mask(tmp_path):
    before = os.umask(0o027)
    try:
        path = write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "message"), [("gone/a", "must exist"), (".", "must be a file"), ("there", "exists already")]
)
def test_places_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "there").write_text("old")
    with pytest.raises(OutputError, match=message):
        check_writable(tmp_path / name)
    assert (tmp_path / "there").read_text() == "old"

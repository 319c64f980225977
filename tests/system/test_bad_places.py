"""Places that take no file are named before the work, and what is written there is written as its reader wants it."""

import os
import resource
import stat

import pytest

from tfcompress.errors import OutputError
from tfcompress.system import check_writable, run_isolated, write_atomically


@pytest.mark.parametrize("length", [240, 255])
def test_every_name_that_a_folder_can_hold_is_written(tmp_path, length):
    path = tmp_path / ("a" * (length - 7) + ".tflite")
    assert write_atomically(path, b"whole").read_bytes() == b"whole"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_name_too_long_is_refused_before_the_work(tmp_path):
    with pytest.raises(OutputError, match=r"must have a name that can be written\. .*too long"):
        check_writable(tmp_path / ("a" * 256))


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_replaced_file_hands_its_mode_on(tmp_path, mode):
    path = write_atomically(tmp_path / "a.tflite", b"old")
    path.chmod(mode)
    write_atomically(path, b"new", overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        path = write_atomically(tmp_path / "a.tflite", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_folder_for_temporary_files_without_room_is_named(tmp_path, monkeypatch):
    """A limit on the size of a file is as good as a full disk, and needs no rights."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError) as caught:
            run_isolated("tfcompress.system.isolation:count_letters", "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"Received: {tmp_path} (" in str(caught.value)
    assert "TMPDIR" in str(caught.value)
    assert not list(tmp_path.iterdir())

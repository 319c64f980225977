"""HDF5 files are read to their end in a child process before anything here opens them."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from tfcompress.errors import ModelError
from tfcompress.lowering.trust import unchecked


def sound(where, **attributes):
    with h5py.File(where, "w") as file:
        file.attrs.update(attributes)
        file["layer/kernel"] = np.arange(12.0).reshape(3, 4)
        file["layer/scalar"] = 3
        file["layer"].create_dataset("empty", data=np.zeros((0, 4)))
        file["layer"].attrs["names"] = ["kernel", "scalar"]


def archive(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "{}")
        if content is not None:
            file.writestr(unchecked.WEIGHTS, content)


def test_a_sound_file_gives_its_configuration(tmp_path):
    sound(tmp_path / "a.h5", model_config=json.dumps({"a": 1}))
    assert json.loads(unchecked.check_hdf5(tmp_path / "a.h5")) == {"a": 1}
    sound(tmp_path / "b.h5")
    assert unchecked.check_hdf5(tmp_path / "b.h5") is None


def test_the_weights_of_an_archive_are_read_too(tmp_path):
    stream = io.BytesIO()
    sound(stream)
    content = stream.getvalue()
    archive(tmp_path / "a.keras", content)
    assert unchecked.check_hdf5(tmp_path / "a.keras") is None
    archive(tmp_path / "b.keras", None)
    assert unchecked.check_hdf5(tmp_path / "b.keras") is None
    archive(tmp_path / "c.keras", content[: len(content) // 2])
    with pytest.raises(ModelError, match="The .keras file is damaged"):
        unchecked.check_hdf5(tmp_path / "c.keras")


def test_a_truncated_file_is_refused(tmp_path):
    sound(tmp_path / "a.h5")
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content[:-100])
    with pytest.raises(ModelError, match="The .h5 file is damaged"):
        unchecked.check_hdf5(tmp_path / "a.h5")


def test_a_promise_of_more_than_can_be_stored_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("huge", shape=(1 << 40,), dtype=np.float32)  # takes no room until it is written
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with pytest.raises(ModelError, match="/huge would be"):
        unchecked.check_hdf5(tmp_path / "a.h5")

"""The front end of speech models is what its formulas say, by references that share no line with it."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.signal

import tfcompress.data.log_mel
from tfcompress.data.log_mel import LogMel

# float32 against float64: sums of some hundred products, whose logarithm is taken.
CLOSE = {"rtol": 0, "atol": 1e-4}
SETTINGS = [LogMel(), LogMel(rate=16_000, frame_length=480, hop_length=320, bands=40, lowest_hz=20, highest_hz=7_600)]


def noise(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def by_scipy(front_end, sound):
    """SciPy's short-time Fourier transform, and triangles that np.interp draws on the mel scale of base 10."""
    length = front_end.frame_length
    hertz, _, spectrum = scipy.signal.stft(
        sound.astype(np.float64),
        front_end.rate,
        nperseg=length,
        noverlap=length - front_end.hop_length,
        boundary=None,
        padded=False,
    )
    power = np.abs(spectrum * scipy.signal.get_window("hann", length).sum()) ** 2
    mel = 2595 * np.log10(1 + hertz[1:] / 700)
    ends = 2595 * np.log10(1 + np.array([front_end.lowest_hz, front_end.highest_hz]) / 700)
    points = np.linspace(*ends, front_end.bands + 2)
    weights = [np.interp(mel, points[b : b + 3], [0, 1, 0]) for b in range(front_end.bands)]
    return np.log(power[1:].T @ np.transpose(weights) + front_end.floor)


@pytest.mark.parametrize("front_end", SETTINGS, ids=lambda settings: str(settings.rate))
@pytest.mark.parametrize("samples", [800, 8000, 8100])
def test_it_is_what_scipy_computes(front_end, samples):
    sound = noise(samples)
    features = front_end(sound)
    assert features.shape == (front_end.frames(samples), front_end.bands)
    np.testing.assert_allclose(features, by_scipy(front_end, sound), **CLOSE)


def test_the_triangles_are_those_of_tensorflow():
    import tensorflow as tf

    front_end = LogMel()
    expected = tf.signal.linear_to_mel_weight_matrix(20, 129, 8000, 60.0, 3800.0)
    np.testing.assert_allclose(front_end.weights, expected, rtol=0, atol=1e-5)  # TensorFlow computes them in float32


def test_silence_is_the_floor_and_a_louder_sound_is_a_sum():
    front_end = LogMel()
    np.testing.assert_allclose(front_end(np.zeros(8000, np.float32)), np.log(1e-4), rtol=1e-6)
    sound = noise(8000)
    np.testing.assert_allclose(front_end(sound) - front_end(sound / 2), np.log(4), **CLOSE)


def test_a_tone_is_in_its_band():
    front_end = LogMel()
    tops = np.linspace(*(1127 * np.log1p(np.array([60, 3800]) / 700)), 22)[1:-1]
    for band in (3, 10, 19):
        hertz = 700 * np.expm1(tops[band] / 1127)
        tone = np.sin(2 * np.pi * hertz * np.arange(8000) / 8000)
        assert set(front_end(tone.astype(np.float32)).argmax(axis=1)) == {band}


def test_integers_many_sounds_and_later_starts():
    front_end = LogMel()
    sounds = np.round(noise(3, 2000) * 32_767).astype(np.int16)
    features = front_end(sounds)
    np.testing.assert_array_equal(features, front_end(sounds.astype(np.float32) / 32_768))
    # Matrix products of other sizes add in another order.
    np.testing.assert_allclose(features[1], front_end(sounds[1]), **CLOSE)
    np.testing.assert_allclose(front_end(sounds[:, 160:]), features[:, 1:], **CLOSE)


def test_the_file_runs_alone_on_a_board(tmp_path):
    """As a user copies it: without the package, and with nothing but NumPy."""
    shutil.copy(tfcompress.data.log_mel.__file__, tmp_path / "log_mel.py")
    program = (
        "import sys; before = set(sys.modules)\n"
        "import numpy; after = set(sys.modules)\n"
        "import log_mel; sound = numpy.load('in.npy'); numpy.save('out.npy', log_mel.LogMel()(sound))\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - after} - sys.stdlib_module_names - {'log_mel', 'numpy'}\n"
        "assert not new, new\n"
    )
    sound = noise(8000)
    np.save(tmp_path / "in.npy", sound)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), LogMel()(sound))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0}, "rate must be above 0"),
        ({"frame_length": 255}, "frame_length must be even and above 1"),
        ({"hop_length": 0}, "hop_length must be above 0"),
        ({"bands": 0}, "bands must be above 0"),
        ({"highest_hz": 4001}, "highest_hz must be at most half of rate"),
        ({"lowest_hz": 3800}, "lowest_hz must be from 0 up and below highest_hz"),
        ({"floor": 0}, "floor must be above 0"),
        ({"bands": 200}, "Every band needs a bin of 31.2 Hz"),
    ],
    ids=str,
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**settings)


@pytest.mark.parametrize("sound", [np.zeros(255, np.float32), np.float32(0), np.zeros(300, np.int32)], ids=repr)
def test_wrong_sounds(sound):
    with pytest.raises(ValueError, match="sound must"):
        LogMel()(sound)

"""Laws of the linear quantization arithmetic, then numbers computed by hand."""

import numpy as np
import pytest

from tfcompress.tflite.affine import AffineParameters, dequantize, from_range, quantize, round_half_away

RANGES = [(-3.14159, 3.14159), (0.0, 1.0), (-1.0, 0.0), (2.0, 6.0), (-5.0, -1.0), (-1e-6, 1e6), (0.0, 0.0), (-0.1, 7.3)]
each_range = pytest.mark.parametrize("lo, hi", RANGES)
each_width = pytest.mark.parametrize("bits", [2, 4, 8, 16])
each_kind = pytest.mark.parametrize("symmetric", [False, True])


@each_range
@each_width
@each_kind
def test_zero_is_exact(lo, hi, bits, symmetric):
    parameters = from_range(lo, hi, bits=bits, symmetric=symmetric)
    assert dequantize(quantize(np.zeros(3), parameters), parameters).tolist() == [0.0] * 3


@each_range
@each_width
@each_kind
def test_round_trip_within_half_a_step(lo, hi, bits, symmetric):
    parameters = from_range(lo, hi, bits=bits, symmetric=symmetric)
    low, high = parameters.real_range
    values = np.linspace(low, high, 1001)
    back = dequantize(quantize(values, parameters), parameters)
    # 2^-23 of the largest value: dequantize answers in float32
    assert np.abs(back - values).max() <= parameters.scale / 2 + 2**-23 * max(abs(low), abs(high))


@each_range
@each_width
def test_range_is_covered_to_half_a_step(lo, hi, bits):
    parameters = from_range(lo, hi, bits=bits)
    low, high = parameters.real_range
    slack = parameters.scale * (0.5 + 1e-9)  # nudging the zero point to a whole number moves both ends
    assert low <= min(lo, 0.0) + slack and high >= max(hi, 0.0) - slack


@each_range
@each_width
@each_kind
def test_integers_survive(lo, hi, bits, symmetric):
    parameters = from_range(lo, hi, bits=bits, symmetric=symmetric)
    integers = np.arange(parameters.lowest, parameters.highest + 1).astype(parameters.dtype)
    assert np.array_equal(
        quantize(integers.astype(np.float64) * parameters.scale, parameters_at_zero(parameters)), integers
    )
    assert np.array_equal(quantize(dequantize(integers, parameters), parameters), integers)


def parameters_at_zero(parameters):
    return AffineParameters(parameters.scale, 0, bits=parameters.bits, narrow=parameters.narrow)


@each_range
def test_quantize_is_monotone_and_clips(lo, hi):
    parameters = from_range(lo, hi)
    values = np.linspace(3 * lo - 1, 3 * hi + 1, 2001)
    integers = quantize(values, parameters).astype(int)
    assert (np.diff(integers) >= 0).all()
    assert quantize(np.array([-np.inf, np.inf]), parameters).tolist() == [-128, 127]


def test_pi_by_hand():
    parameters = from_range(-3.14159, 3.14159)
    assert parameters.scale == pytest.approx(6.28318 / 255, rel=1e-15)
    assert parameters.zero_point == -1
    assert quantize(np.array([3.14159, -3.14159, 0.0]), parameters).tolist() == [127, -128, -1]
    symmetric = from_range(-3.14159, 3.14159, symmetric=True)
    assert symmetric.scale == pytest.approx(3.14159 / 127, rel=1e-15)
    assert symmetric.zero_point == 0
    assert quantize(np.array([3.14159, -3.14159, -9.0]), symmetric).tolist() == [127, -127, -127]


def test_halves_go_away_from_zero():
    assert round_half_away(np.array([-1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-2, -1, 1, 2, 3]


def test_unsigned_and_wide_dtypes():
    assert quantize(np.array([-1.0, 0.0, 127.0]), AffineParameters(1.0, 128, signed=False)).tolist() == [127, 128, 255]
    assert quantize(np.ones(1), from_range(-1, 1, bits=16)).dtype == np.int16
    assert AffineParameters.of_dtype(0.5, 3, np.uint8).dtype == np.uint8


@pytest.mark.parametrize(
    "make",
    [
        lambda: from_range(1.0, 0.0),
        lambda: from_range(float("nan"), 0.0),
        lambda: from_range(0.0, float("inf")),
        lambda: from_range(0.0, 1.0, bits=1),
        lambda: AffineParameters(0.0, 0),
        lambda: AffineParameters(1.0, 200),
        lambda: AffineParameters.of_dtype(1.0, 0, np.float32),
        lambda: quantize(np.array([np.nan]), from_range(0, 1)),
    ],
)
def test_wrong_arguments_say_what_was_received(make):
    with pytest.raises(ValueError, match="Received: "):
        make()

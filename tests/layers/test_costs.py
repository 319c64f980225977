"""Multiply-adds are those that a pencil counts, layer by layer."""

import keras
import pytest
from keras import layers

from tfcompress.errors import ModelError
from tfcompress.layers import costs


def counted(layer, *shapes, call=None):
    inputs = [keras.Input(shape) for shape in shapes]
    outputs = (call or (lambda made, *given: made(*given)))(layer, *inputs)
    return costs.multiply_adds(keras.Model(inputs, outputs))


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Conv1D(5, 3, padding="same"), (20, 4), 20 * 3 * 4 * 5),
        (layers.Conv2D(6, 3, strides=2, padding="same"), (8, 8, 3), 4 * 4 * 9 * 3 * 6),
        (layers.Conv2D(8, 3, padding="same", groups=4), (8, 8, 4), 8 * 8 * 9 * 1 * 8),
        (layers.Conv3D(2, 2), (3, 4, 5, 1), 2 * 3 * 4 * 8 * 2),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (8, 8, 3), 64 * 9 * 6),
        (layers.SeparableConv2D(7, 3, padding="same"), (8, 8, 3), 64 * (9 * 3 + 3 * 7)),
        (layers.Conv2DTranspose(5, 3, strides=2, padding="same"), (4, 4, 2), 16 * 9 * 5 * 2),
        (layers.Dense(9), (4,), 36),
        (layers.Dense(9), (11, 4), 11 * 36),
        (layers.EinsumDense("abc,cde->abde", output_shape=(11, 2, 6)), (11, 4), 11 * 4 * 12),
        (layers.EinsumDense("...c,ce->...e", output_shape=6), (3, 11, 4), 3 * 11 * 4 * 6),
        (layers.EinsumDense("abcd,cde->abe", output_shape=(11, 6)), (11, 2, 4), 11 * 2 * 4 * 6),
        (layers.LSTM(6), (10, 3), 10 * (3 + 6) * 4 * 6),
        (layers.LSTM(6, return_sequences=True, unroll=True), (10, 3), 10 * (3 + 6) * 4 * 6),
        (layers.GRU(6), (10, 3), 10 * (3 + 6) * 3 * 6),
        (layers.SimpleRNN(6), (10, 3), 10 * (3 + 6) * 6),
        (layers.Bidirectional(layers.LSTM(6)), (10, 3), 2 * 10 * (3 + 6) * 4 * 6),
        (layers.BatchNormalization(), (8, 8, 3), 0),
        (layers.MaxPooling2D(), (8, 8, 3), 0),
    ],
    ids=lambda value: value.name if isinstance(value, layers.Layer) else "",
)
def test_a_layer_is_counted(layer, shape, expected):
    assert counted(layer, shape) == expected


def test_attention_counts_projections_and_both_products():
    width, heads, size = 8, 2, 4
    for queries, keys in ((7, 7), (7, 12)):
        attention = layers.MultiHeadAttention(heads, size)
        expected = (2 * queries + 2 * keys) * width * heads * size + 2 * queries * keys * heads * size
        assert counted(attention, (queries, width), (keys, width)) == expected
    itself = counted(layers.MultiHeadAttention(heads, size), (7, width), call=lambda made, x: made(x, x))
    assert itself == 4 * 7 * width * heads * size + 2 * 7 * 7 * heads * size


def test_nested_and_shared_layers_count_at_each_call():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, use_bias=False)])
    one, two = keras.Input((4,)), keras.Input((4,))
    assert costs.multiply_adds(keras.Model([one, two], layers.Add()([inner(one), inner(two)]))) == 2 * 20


def test_what_cannot_be_counted_is_said():
    with pytest.raises(ModelError, match=r"fixed input shape. Received: .* \(None, None, None, 3\)"):
        counted(layers.Conv2D(3, 3, padding="same"), (None, None, 3))

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="a subclassed model"):
        costs.multiply_adds(Own())

"""Small models of text: classifiers of word or character numbers, and a model of the next character.

All take a fixed number of int32 ids, 0 where the text has ended; which text is which id is the tokenizer's business.
"""

import keras
from keras import layers

__all__ = ["next_character", "text_attention", "text_cnn", "text_lstm"]

DROPOUT = 0.3
CAUSAL_KERNEL = 3


def text_cnn(
    *,
    length: int = 64,
    vocabulary: int = 2000,
    classes: int = 2,
    embedding: int = 32,
    filters: int = 64,
    name: str = "text_cnn",
) -> keras.Model:
    """Returns a classifier of (n, length) int32 ids by an embedding, a convolution over 5 ids and its maximum.

    Args:
        length: ids of a text. Default: 64.
        vocabulary: number of ids, 0 included. Default: 2000.
        classes: number of logits. Default: 2.
        embedding: numbers that stand for one id. Default: 32.
        filters: of the convolution. Default: 64.
        name: of the model. Default: "text_cnn".

    Examples:
        >>> text_cnn().output_shape
        (None, 2)

    Source: Kim, "Convolutional neural networks for sentence classification", 2014, https://arxiv.org/abs/1408.5882; one
    width of filters instead of three.
    """
    ids = keras.Input((length,), dtype="int32", name="ids")
    x = layers.Embedding(vocabulary, embedding, name="embedding")(ids)
    x = layers.Dropout(DROPOUT, name="embedding_dropout")(x)
    x = layers.Conv1D(filters, 5, padding="same", activation="relu", name="convolution")(x)
    x = layers.GlobalMaxPooling1D(name="maximum")(x)
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    return keras.Model(ids, layers.Dense(classes, name="logits")(x), name=name)


def text_attention(
    *,
    length: int = 64,
    vocabulary: int = 2000,
    classes: int = 2,
    embedding: int = 32,
    heads: int = 2,
    name: str = "text_attention",
) -> keras.Model:
    """Returns a classifier of (n, length) int32 ids by one block of self-attention and the mean over the text.

    Args:
        length: ids of a text. Default: 64.
        vocabulary: number of ids, 0 included. Default: 2000.
        classes: number of logits. Default: 2.
        embedding: numbers that stand for one id, a multiple of ``heads``. Default: 32.
        heads: of the attention. Default: 2.
        name: of the model. Default: "text_attention".

    Examples:
        >>> text_attention().output_shape
        (None, 2)

    Source: Vaswani et al., "Attention is all you need", 2017, https://arxiv.org/abs/1706.03762; without LayerNorm, whose
    square root and division cost more in integers than one block gains by them, and without positions.
    """
    ids = keras.Input((length,), dtype="int32", name="ids")
    x = layers.Embedding(vocabulary, embedding, name="embedding")(ids)
    x = layers.Dropout(DROPOUT, name="embedding_dropout")(x)
    attention = layers.MultiHeadAttention(heads, embedding // heads, use_bias=False, name="attention")(x, x)
    x = layers.Add(name="attended")([x, attention])
    hidden = layers.Dense(2 * embedding, activation="relu", name="hidden")(x)
    x = layers.Add(name="residual")([x, layers.Dense(embedding, name="projection")(hidden)])
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    return keras.Model(ids, layers.Dense(classes, name="logits")(x), name=name)


def text_lstm(
    *,
    length: int = 32,
    vocabulary: int = 2000,
    classes: int = 2,
    embedding: int = 32,
    units: int = 32,
    name: str = "text_lstm",
) -> keras.Model:
    """Returns a classifier of (n, length) int32 ids by an embedding and an LSTM, which reads the text from its start.

    The LSTM is unrolled: as a loop it would stay in float, for TFLite's converter quantizes none of Keras 3.

    Args:
        length: ids of a text; each becomes operations of its own. Default: 32.
        vocabulary: number of ids, 0 included. Default: 2000.
        classes: number of logits. Default: 2.
        embedding: numbers that stand for one id. Default: 32.
        units: of the LSTM. Default: 32.
        name: of the model. Default: "text_lstm".

    Examples:
        >>> text_lstm().output_shape
        (None, 2)

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997, https://doi.org/10.1162/neco.1997.9.8.1735.
    """
    ids = keras.Input((length,), dtype="int32", name="ids")
    x = layers.Embedding(vocabulary, embedding, name="embedding")(ids)
    x = layers.LSTM(units, unroll=True, name="lstm")(x)
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    return keras.Model(ids, layers.Dense(classes, name="logits")(x), name=name)


def next_character(
    *,
    length: int = 64,
    vocabulary: int = 64,
    embedding: int = 32,
    filters: int = 96,
    dilations: tuple[int, ...] = (1, 2, 4, 8),
    name: str = "next_character",
) -> keras.Model:
    """Returns a model from (n, length) int32 ids to (n, length, vocabulary) logits of the id that follows each.

    Dilated causal convolutions: what stands behind a position does not change its answer, so that a text that is still
    growing lies at the front of the window.

    Args:
        length: ids of a window. Default: 64.
        vocabulary: number of ids, 0 included. Default: 64.
        embedding: numbers that stand for one id. Default: 32.
        filters: of each convolution. Default: 96.
        dilations: of the convolutions, each 3 ids wide; four of 1, 2, 4 and 8 see 31 characters.
            Default: (1, 2, 4, 8).
        name: of the model. Default: "next_character".

    Examples:
        >>> next_character().output_shape
        (None, 64, 64)

    Source: Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling", 2018, https://arxiv.org/abs/1803.01271; one convolution in each block.
    """
    ids = keras.Input((length,), dtype="int32", name="ids")
    x = layers.Embedding(vocabulary, embedding, name="embedding")(ids)
    x = layers.Dense(filters, name="widen")(x)
    for number, dilation in enumerate(dilations, start=1):
        y = layers.Conv1D(
            filters, CAUSAL_KERNEL, padding="causal", dilation_rate=dilation, activation="relu", name=f"block{number}"
        )(x)
        x = layers.Add(name=f"residual{number}")([x, y])
    return keras.Model(ids, layers.Dense(vocabulary, name="logits")(x), name=name)

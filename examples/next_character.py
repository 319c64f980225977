"""Which character comes next? A small model of text messages, decoded greedily on the int8 file."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flow
import numpy as np
import outcome
import sms_spam
from absl import flags

import tfcompress as tfc
from tfcompress.data import Tokenizer

LENGTH = 64
NOTHING = -1  # a place behind a message's end: neither learned nor judged
BEGINNINGS = ("Hey, ", "I will ", "Are you ", "Sorry, ")
RECIPE = flow.Recipe(epochs=8, compressed_epochs=4, batch_size=64, learning_rate=4e-3, sparsity=0.3)
CLAIMS = {
    "float names at least 40 % of the characters": lambda summary: summary["next_right"]["float32"]["mean"] >= 0.40,
    "int8 loses at most 1 point": lambda summary: outcome.most_lost(summary["next_right"]) <= 0.01,
}


def pairs(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids (n, 64) int32 and the id that follows each (n, 64) int64: 0 behind the last, then -1."""
    ids = tokenizer(texts)
    following = np.concatenate([ids[:, 1:], np.zeros_like(ids[:, :1])], axis=1).astype(np.int64)
    lengths = np.count_nonzero(ids, axis=1)
    following[np.arange(LENGTH)[None] >= lengths[:, None]] = NOTHING
    # A message that was cut off has no end to learn.
    following[lengths == LENGTH, -1] = NOTHING
    return ids, following


def next_right(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """Returns the share of characters that the most likely answer names."""
    said = next(iter(outputs.values())).argmax(axis=-1)
    return float(np.mean((said == labels)[labels != NOTHING]))


def greedy(file: Path, tokenizer: Tokenizer, beginning: str) -> str:
    """Returns the message that begins so, each further character the most likely one, to its end or 64 characters."""
    from tfcompress.tflite import open_model

    model = open_model(file)
    ids = tokenizer([beginning])
    for place in range(int(np.count_nonzero(ids)), LENGTH):
        logits = next(iter(model.run(ids).values()))  # (1, 64, vocabulary)
        ids[0, place] = logits[0, place - 1].argmax()
        if ids[0, place] == 0:
            break
    return tokenizer.text(ids[0])


def loss() -> Any:
    """Returns the cross-entropy of all characters that have a next one."""
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=NOTHING)


def build(vocabulary: int) -> Any:
    """Returns the untrained model, (n, 64) int32 to (n, 64, vocabulary) logits."""
    from tfcompress.zoo.text import next_character

    return next_character(length=LENGTH, vocabulary=vocabulary, filters=80)


def run(values: flags.FlagValues) -> None:
    """Trains and measures as the flags say."""
    messages = sms_spam.load(values.data)
    ham = [text for text, label in zip(messages.texts, messages.y, strict=True) if label != sms_spam.SPAM]
    tests = [text for text, label in zip(messages.test_texts, messages.y_test, strict=True) if label != sms_spam.SPAM]
    tokenizer = Tokenizer.learned_from(ham, size=96, length=LENGTH, unit="character")
    tokenizer.save(Path(values.output) / "vocabulary.txt", overwrite=True)
    x, y = pairs(tokenizer, ham)
    task = flow.Task(
        title="tfcompress example: the next character",
        build=lambda: build(len(tokenizer.vocabulary)),
        x=x,
        y=y,
        test=pairs(tokenizer, tests),
        loss=loss,
        metric=next_right,
        watch=(),
        settings={"metadata": tfc.Metadata("next_character")},
        answer=lambda file, folder: [
            "Decoded greedily on the int8 file:",
            *(f"  {beginning}|{greedy(file, tokenizer, beginning)[len(beginning) :]}" for beginning in BEGINNINGS),
        ],
        claims=CLAIMS,
    )
    flow.run_flags(task, RECIPE, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    return flow.command(
        run,
        flow.define_flags(name="next_character", data="sms_spam"),
        list(sys.argv[1:] if arguments is None else arguments),
        name="next_character",
        summary="train, compress, convert and measure a model of the next character",
    )


if __name__ == "__main__":
    sys.exit(main())

"""Is this text message spam? A tokenizer that goes to the device with the model, and a small convolution over words.

Besides what every example writes, the folder ``bundle`` holds the int8 file with its vocabulary and the tokenizer's rule as
Python and Kotlin.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flow
import numpy as np
import outcome
from absl import flags

import tfcompress as tfc
from tfcompress.data import Tokenizer

ORIGIN = "the UCI SMS Spam Collection (doi.org/10.24432/C5CC84, CC BY 4.0), tab separated with a row of headings"
NAME = "SMSSpamCollection"
CLASSES = ("ham", "spam")
SPAM = CLASSES.index("spam")
HELD_BACK = 0.2
VOCABULARY, LENGTH = 2000, 64
DROPPED = 0.1  # of the words while training
RECIPE = flow.Recipe(epochs=12, compressed_epochs=9, teacher_epochs=0, batch_size=64, learning_rate=2e-3, sparsity=0.5)
CLAIMS = {
    "float answers at least 97 %": lambda summary: summary["top1"]["float32"]["mean"] >= 0.97,
    "F1 of spam is at least 0.90 in each file": lambda summary: outcome.least(summary["spam_f1"]) >= 0.90,
    "int8 loses at most 1 point": lambda summary: outcome.most_lost(summary["top1"]) <= 0.01,
}


class Messages(NamedTuple):
    """Texts and classes (n,) int64, to learn from and to test on."""

    texts: list[str]
    y: np.ndarray
    test_texts: list[str]
    y_test: np.ndarray


def load(folder: Path) -> Messages:
    """Returns all messages once: 400 are there twice or more, which a split by chance would learn from and test on."""
    from sklearn.model_selection import train_test_split

    lines = flow.find_data(folder, NAME, origin=ORIGIN).read_bytes().decode("utf-8").split("\n")[1:]
    found = {text: label for label, _, text in (line.partition("\t") for line in lines if line)}
    texts, y = list(found), np.array([CLASSES.index(label) for label in found.values()], np.int64)
    train, test = train_test_split(np.arange(len(y)), test_size=HELD_BACK, random_state=0, stratify=y)
    return Messages([texts[i] for i in train], y[train], [texts[i] for i in test], y[test])


def spam_f1(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """Returns F1 of the spam class: the harmonic mean of precision and recall."""
    is_said = next(iter(outputs.values())).argmax(axis=1) == SPAM
    is_true = np.asarray(labels) == SPAM
    right = np.count_nonzero(is_said & is_true)
    return 2 * right / max(1, np.count_nonzero(is_said) + np.count_nonzero(is_true))


def augment(ids: Any, y: Any) -> tuple[Any, Any]:
    """Returns messages in which some words are unknown."""
    import tensorflow as tf

    is_dropped = (tf.random.uniform(tf.shape(ids)) < DROPPED) & (ids > 0)
    return tf.where(is_dropped, tf.ones_like(ids), ids), y


def build(embedding: int, filters: int) -> Any:
    """Returns the untrained model, (n, 64) int32 to (n, 2) logits."""
    from tfcompress.zoo.text import text_cnn

    return text_cnn(length=LENGTH, vocabulary=VOCABULARY, embedding=embedding, filters=filters, name="sms_spam")


def answers(file: Path, folder: Path, tokenizer: Tokenizer, messages: Messages) -> list[str]:
    """Returns what the int8 model says about one test message of each class; writes the bundle."""
    import tfcompress as tfc
    from tfcompress.tflite import open_model

    model = open_model(file)
    chosen = [int(np.flatnonzero(messages.y_test == label)[0]) for label in range(len(CLASSES))]
    ids = tokenizer([messages.test_texts[i] for i in chosen])
    said = next(iter(model.run(ids).values())).argmax(axis=1)
    tfc.bundle(
        file,
        folder / "bundle",
        source="sms_spam.keras",
        target="cpu-int8",
        labels=CLASSES,
        samples={model.inputs[0].name: ids},
        tokenizer=tokenizer,
        overwrite=True,
    )
    shown = [messages.test_texts[i] for i in chosen]
    return [
        line
        for text, label, answer in zip(shown, messages.y_test[chosen], said, strict=True)
        for line in (
            f"{CLASSES[label]}: {text[:70]}{'...' if len(text) > 70 else ''}",
            f"  the int8 model says: {CLASSES[answer]}",
        )
    ]


def make_task(messages: Messages, tokenizer: Tokenizer) -> flow.Task:
    """Returns what is learned from the messages."""
    return flow.Task(
        title="tfcompress example: spam among text messages",
        build=lambda: build(32, 48),
        teacher=lambda: build(96, 192),
        x=tokenizer(messages.texts),
        y=messages.y,
        test=(tokenizer(messages.test_texts), messages.y_test),
        augment=augment,
        metric=["top1", spam_f1],
        settings={"metadata": tfc.Metadata("sms_spam", labels=CLASSES)},
        answer=lambda file, folder: answers(file, folder, tokenizer, messages),
        claims=CLAIMS,
    )


def learned_tokenizer(messages: Messages) -> Tokenizer:
    """Returns the tokenizer of the training messages."""
    return Tokenizer.learned_from(messages.texts, size=VOCABULARY, length=LENGTH)


def run(values: flags.FlagValues) -> None:
    """Trains and measures as the flags say."""
    messages = load(values.data)
    tokenizer = learned_tokenizer(messages)
    tokenizer.save(Path(values.output) / "vocabulary.txt", overwrite=True)
    flow.run_flags(make_task(messages, tokenizer), RECIPE, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    return flow.command(
        run,
        flow.define_flags(name="sms_spam", data="sms_spam"),
        list(sys.argv[1:] if arguments is None else arguments),
        name="sms_spam",
        summary="train, compress, convert and measure a filter of text messages",
    )


if __name__ == "__main__":
    sys.exit(main())

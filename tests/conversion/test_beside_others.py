"""A conversion beside others: threads that print, a fit that goes on, a process that was forked."""

import io
import os
import select
import signal
import sys
import threading
import warnings

import keras
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.system.quiet import converter_silenced, native_stderr_silenced, prints_silenced

X, Y = striped_pictures(64)


def bits(model):
    return [weight.tobytes() for weight in model.get_weights()]


class Talker(threading.Thread):
    """Prints to both streams until it is told to stop."""

    def __init__(self):
        super().__init__()
        self.done = threading.Event()
        self.lines = 0

    def run(self):
        while not self.done.wait(0.001):
            print(f"out {self.lines}")
            print(f"err {self.lines}", file=sys.stderr)
            self.lines += 1


def test_overlapping_conversions_leave_the_streams_alone_and_other_threads_are_heard(capsys):
    before, models, files = (sys.stdout, sys.stderr), [tiny_cnn(seed) for seed in (0, 1)], {}
    alone = [tfc.convert(model, target="float32").tflite for model in models]

    def work(number):
        files[number] = tfc.convert(models[number], target="float32").tflite

    talker = Talker()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    talker.start()
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    talker.done.set()
    talker.join()
    assert (sys.stdout, sys.stderr) == before
    assert [files[0], files[1]] == alone
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"out {number}" for number in range(talker.lines)]
    assert said.err.splitlines() == [f"err {number}" for number in range(talker.lines)]


def test_silence_of_many_threads_is_of_native_lines_alone(capfd, tmp_path):
    """Python's stream to descriptor 2 itself, which pytest replaces, loses no line and stays the object that it is."""
    path = tmp_path / "stderr"
    kept, stream = os.dup(2), io.TextIOWrapper(io.BufferedWriter(io.FileIO(2, "w", closefd=False)), line_buffering=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 2)
    os.close(file)
    real, sys.stderr = sys.stderr, stream
    try:
        talker = Talker()
        talker.start()

        def work():
            for _ in range(100):
                with converter_silenced(), native_stderr_silenced():
                    os.write(2, b"native\n")

        workers = [threading.Thread(target=work) for _ in range(3)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()
        talker.done.set()
        talker.join()
        os.write(2, b"still here\n")
        assert sys.stderr is stream
        assert stream.fileno() == 2
    finally:
        sys.stderr = real
        os.dup2(kept, 2)
        os.close(kept)
    lines = path.read_text().splitlines()
    assert lines == [*(f"err {number}" for number in range(talker.lines)), "still here"]


def test_a_library_that_prints_is_silent_in_this_thread_alone(capsys):
    import calendar

    inside, outside = threading.Event(), threading.Event()

    def other():
        inside.wait()
        calendar.prmonth(2026, 11)
        outside.set()

    thread = threading.Thread(target=other)
    thread.start()
    with prints_silenced(calendar):
        calendar.prmonth(2026, 12)
        inside.set()
        outside.wait()
    thread.join()
    said = capsys.readouterr().out
    assert "November" in said
    assert "December" not in said


class Converting(keras.callbacks.Callback):
    """Converts in the middle of a fit, once at each of some moments that Keras offers."""

    def __init__(self, *moments, **options):
        super().__init__()
        self.waiting = set(moments)
        for moment in moments:
            setattr(self, moment, lambda number, logs=None, moment=moment: self.convert(moment, options))

    def convert(self, moment, options):
        if moment in self.waiting:
            self.waiting.remove(moment)
            tfc.convert(self.model, **options)


def with_dropout():
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    layers = [keras.Input((8, 8, 2)), keras.layers.Flatten(), *hidden, keras.layers.Dense(3)]
    return compiled(keras.Sequential(layers), jit_compile=False)


def test_a_conversion_in_a_plain_fit_leaves_the_fit_as_it_is():
    moments = ("on_train_batch_begin", "on_train_batch_end", "on_epoch_begin", "on_test_batch_begin")
    converting, fitted = Converting(*moments, representative_data=X[:8]), []
    for callbacks in ([], [converting]):
        model = with_dropout()
        options = {"validation_data": (X, Y), "validation_batch_size": 16, "callbacks": callbacks}
        model.fit(X, Y, epochs=2, batch_size=16, verbose=0, **options)
        fitted.append(bits(model))
    assert not converting.waiting
    assert fitted[0] == fitted[1]


@pytest.mark.parametrize("name", ["MagnitudePruning", "QuantizationAwareTraining"])
def test_a_conversion_right_before_a_step_does_not_end_a_fit_with_callbacks(name):
    """The callback puts itself back at the next step; this one is a plain one."""
    callback = {"MagnitudePruning": lambda: tfc.MagnitudePruning(0.5)}.get(name, getattr(tfc, name))()
    model, converting = with_dropout(), Converting("on_train_batch_begin", target="float32")
    history = model.fit(X, Y, epochs=2, batch_size=16, verbose=0, callbacks=[callback, converting])
    assert len(history.history["loss"]) == 2
    assert not converting.waiting


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="told by Linux")
def test_a_conversion_in_a_forked_child_is_refused_in_one_line():
    model = tiny_cnn()
    model.predict(X, verbose=0)  # TensorFlow has run
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of what this is about
        child = os.fork()
    if not child:
        try:
            tfc.convert(model, target="float32")
        except tfc.errors.ConversionError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], 60)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = os.read(read, 1000).decode() if ready else "nothing"
    os.close(read)
    assert said.startswith("TensorFlow must not have run before a process is forked")
    assert "\n" not in said

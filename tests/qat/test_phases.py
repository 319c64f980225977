"""The phases of quantization-aware training: the table, and real fits that walk it."""

import inspect

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures
from tfcompress.errors import TrainingError
from tfcompress.qat.phases import TRANSITIONS, Phase, PhaseState, Timetable

X, Y = striped_pictures(64)
FLOAT, WAITING, OBSERVING, LEARNING, FROZEN, INTERRUPTED, INFERENCE = Phase
BATCHES = 2


class Recorded(PhaseState):
    """Notes the way."""

    def __init__(self):
        super().__init__()
        self.way = []

    def move(self, after, *, by):
        before = self.now
        super().move(after, by=by)
        if after is not before:
            self.way.append((after, by))


def dense(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3, name="head")]
    return compiled(keras.Sequential([keras.Input((8, 8, 2), name="image"), *layers]), jit_compile=False)


def recording(**options):
    qat = tfc.QuantizationAwareTraining(**options)
    qat._phases = Recorded()
    return qat


def fit(model, *callbacks, **options):
    options = {"epochs": 4, "batch_size": 32, "shuffle": False, **options}
    return model.fit(X, Y, verbose=0, callbacks=list(callbacks), **options)


def way_of(qat):
    """Returns the phases since the last look, with who led there, and forgets them."""
    way, qat._phases.way = qat._phases.way, []
    return way


def is_plain(model):
    return not any("call" in vars(layer) for layer in (model, *model.layers))


END = [(INTERRUPTED, "remove"), (FLOAT, "on_train_end")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(LEARNING, "on_epoch_begin"), (FROZEN, "on_epoch_begin")]),
        ({"freeze_epoch": 9}, [(LEARNING, "on_epoch_begin")]),
        ({"begin_epoch": 2, "freeze_epoch": 3}, [(LEARNING, "on_epoch_begin"), (FROZEN, "on_epoch_begin")]),
        ({"begin_step": 2 * BATCHES + 1}, [(LEARNING, "on_train_batch_begin")]),
        ({"begin_step": 7, "freeze_epoch": 2}, [(FROZEN, "on_train_batch_begin")]),
        (
            {"representative_data": X[:32], "begin_epoch": 1},
            [(OBSERVING, "on_epoch_begin"), (LEARNING, "on_epoch_begin"), (FROZEN, "on_epoch_begin")],
        ),
        (
            {"representative_data": X[:32], "begin_step": 3},
            [(OBSERVING, "on_train_batch_begin"), (LEARNING, "on_train_batch_begin"), (FROZEN, "on_epoch_begin")],
        ),
    ],
    ids=str,
)
def test_a_fit_walks_the_table(options, expected):
    model, qat = dense(), recording(**options)
    fit(model, qat, validation_data=(X, Y))
    assert way_of(qat) == [(WAITING, "on_train_begin"), *expected, *END]
    assert is_plain(model) and not qat.settled()


def test_the_phase_says_at_each_moment_what_the_model_computes():
    """Float where its calls are its own, observed and fake-quantized where they go through the callback."""
    model, qat = dense(), tfc.QuantizationAwareTraining(begin_epoch=1)
    seen, observed = [], []

    def look(*_, **__):
        seen.append((qat.phase, qat.phase.computes, is_plain(model), qat.settled()))

    def spied():
        for sample in X[:8]:
            observed.append((qat.phase.computes, is_plain(model)))
            yield {"image": sample}

    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=look, on_train_batch_end=look, on_epoch_end=look, on_train_end=look
    )
    watch.on_test_begin = look
    qat.representative_data = spied()
    fit(model, qat, watch, validation_data=(X, Y))
    assert set(observed) == {("observed", False)}
    for phase, computes, plain, settled in seen:
        assert (computes == "float") == plain == (not settled)
        assert phase.computes == computes
    assert [phase for phase, *_ in seen[:5]] == [WAITING] * 5  # an epoch: its begin, two batches, validation, its end
    assert {phase for phase, *_ in seen} == {WAITING, LEARNING, FROZEN, FLOAT}


def test_evaluations_and_predictions_are_a_phase_of_their_own():
    model, qat = dense(), recording()
    fit(model, qat)
    way_of(qat)
    model.evaluate(X, Y, verbose=0, callbacks=[qat])
    assert way_of(qat) == [(INFERENCE, "on_test_begin"), (FLOAT, "remove")]
    model.predict(X, verbose=0, callbacks=[qat])
    assert way_of(qat) == [(INFERENCE, "on_predict_begin"), (FLOAT, "remove")]
    qat.points_of(X)
    assert way_of(qat) == [(INFERENCE, "points_of"), (FLOAT, "remove")]
    before = qat.snapshot()
    model.evaluate(X * 100, Y, verbose=0, callbacks=[qat])
    for name, values in qat.snapshot().items():
        np.testing.assert_array_equal(values, before[name])
    assert is_plain(model)


class Failing(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.fail)

    def fail(self, *_, **__):
        raise KeyboardInterrupt


def test_an_interrupted_fit_and_one_after_it():
    model, qat = dense(), recording(freeze_epoch=9)
    with pytest.raises(KeyboardInterrupt):
        fit(model, qat, Failing("on_epoch_end"))
    assert way_of(qat) == [(WAITING, "on_train_begin"), (LEARNING, "on_epoch_begin")]
    assert qat.phase is LEARNING and not is_plain(model)  # Keras tells nobody
    model.evaluate(X, Y, verbose=0, callbacks=[qat])
    put_right = [(INTERRUPTED, "remove"), (FLOAT, "set_model")]
    assert way_of(qat) == [*put_right, (INFERENCE, "on_test_begin"), (FLOAT, "remove")]
    with pytest.raises(KeyboardInterrupt):
        fit(model, qat, Failing("on_epoch_end"))
    way_of(qat)
    qat.remove()
    assert way_of(qat) == [(INTERRUPTED, "remove")]
    assert is_plain(model)
    fit(model, qat)
    again = [(WAITING, "on_train_begin"), (LEARNING, "on_epoch_begin"), *END]
    assert way_of(qat) == [(FLOAT, "set_model"), *again]
    fit(model, qat)
    assert way_of(qat) == again


@pytest.mark.parametrize("kind", ["test", "predict"])
def test_an_evaluation_that_fails_leaves_a_plain_model(kind):
    model, qat = dense(), recording()
    fit(model, qat)
    way_of(qat)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, {"test": "evaluate", "predict": "predict"}[kind])(
            X, verbose=0, callbacks=[qat, Failing(f"on_{kind}_batch_begin")]
        )
    assert qat.phase is INFERENCE  # of another callback's exception Keras tells nobody
    tfc.convert(model)
    assert [phase for phase, _ in way_of(qat)] == [INFERENCE, FLOAT]
    assert is_plain(model)

    def broken():
        yield from [(X[:32], Y[:32])] * 3  # Keras looks at the first two before it begins
        raise RuntimeError("the disk is gone")

    with pytest.raises(Exception, match="the disk is gone"):
        model.evaluate(broken(), verbose=0, callbacks=[qat])
    assert [phase for phase, _ in way_of(qat)] == [INFERENCE, FLOAT]
    assert is_plain(model)


def test_a_resumed_fit_begins_where_it_goes_on(tmp_path):
    model, qat = dense(), recording(begin_epoch=1, freeze_epoch=2)
    fit(model, qat, initial_epoch=3)
    way = [(WAITING, "on_train_begin"), (FROZEN, "on_epoch_begin"), *END]
    assert way_of(qat) == way
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    first = recording(begin_epoch=1, freeze_epoch=2, state_path=tmp_path / "qat.json")
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 3 and Failing("x").fail())
    with pytest.raises(KeyboardInterrupt):
        fit(dense(), backup, first, stop)
    phases = [phase for phase, _ in way_of(first)]
    assert phases == [WAITING, LEARNING, FROZEN]
    resumed = recording(begin_epoch=1, freeze_epoch=2, state_path=tmp_path / "qat.json")
    fit(dense(1), keras.callbacks.BackupAndRestore(tmp_path / "backup"), resumed)
    assert way_of(resumed) == way


@pytest.mark.parametrize("begin_epoch", [0, 1])
@pytest.mark.parametrize("last", [0, BATCHES - 1], ids=["amid an epoch", "before validation"])
def test_a_conversion_in_the_middle_of_a_fit_interrupts_it(begin_epoch, last):
    """Validation behind it, too, is part of the fit, whether ranges were learned or not."""
    model, qat = dense(), recording(begin_epoch=begin_epoch, freeze_epoch=9)

    def convert(batch, logs):
        if batch == last and int(model.optimizer.iterations) <= BATCHES:
            tfc.convert(model, target="float32")
            assert qat.phase is INTERRUPTED and is_plain(model)

    fit(model, qat, keras.callbacks.LambdaCallback(on_train_batch_end=convert), epochs=2, validation_data=(X, Y))
    by = "on_train_batch_begin" if last == 0 else "on_test_begin"
    begun = [(LEARNING, "on_epoch_begin")]
    back = [(INTERRUPTED, "remove"), (WAITING, by), *([] if begin_epoch else [(LEARNING, by)])]
    assert way_of(qat) == [
        (WAITING, "on_train_begin"),
        *([] if begin_epoch else begun),
        *back,
        *begun[:begin_epoch],
        *END,
    ]


def test_another_interception_takes_it_off_and_the_next_step_puts_it_back():
    model, qat, seen = dense(), recording(freeze_epoch=9), []

    def plan(batch, logs):
        tfc.quantization_points.plan(model)
        seen.append(qat.phase)

    fit(model, qat, keras.callbacks.LambdaCallback(on_train_batch_end=plan), epochs=1)
    assert seen == [INTERRUPTED] * BATCHES
    back = [(INTERRUPTED, "remove"), (WAITING, "on_train_batch_begin"), (LEARNING, "on_train_batch_begin")]
    begin = [(WAITING, "on_train_begin"), (LEARNING, "on_epoch_begin")]
    assert way_of(qat) == [*begin, *back, (INTERRUPTED, "remove"), (FLOAT, "on_train_end")]


def test_an_evaluation_in_the_middle_of_a_fit():
    model, qat = dense(), recording(freeze_epoch=9)

    def evaluate(epoch, logs):
        model.evaluate(X, Y, verbose=0, callbacks=[qat])

    fit(model, qat, keras.callbacks.LambdaCallback(on_epoch_end=evaluate), epochs=2)
    inside = [(INTERRUPTED, "remove"), (FLOAT, "set_model"), (INFERENCE, "on_test_begin"), (FLOAT, "remove")]
    first = [(WAITING, "on_train_begin"), (LEARNING, "on_epoch_begin"), *inside]
    assert way_of(qat) == [*first, (WAITING, "on_epoch_begin"), (LEARNING, "on_epoch_begin"), *inside]


def test_ranges_start_from_all_representative_data_though_they_stand_still_by_then():
    """The phase decides: what is observed learns, whatever the epoch says of training steps."""
    seen = []
    for freeze_epoch in (0, 9):
        model, qat = (
            dense(),
            tfc.QuantizationAwareTraining(
                begin_step=1, freeze_epoch=freeze_epoch, representative_data=np.concatenate([X, 10 * X]), momentum=0.5
            ),
        )
        note = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs, qat=qat: batch == 1 and seen.append(qat.ranges)
        )
        fit(model, qat, note, epochs=1)
    assert seen[0]["input:image"] == seen[1]["input:image"]


def test_statistics_of_batch_norm_stand_still_behind_a_conversion_too():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(8), keras.layers.BatchNormalization(name="norm")]
    model = compiled(keras.Sequential([keras.Input((8, 8, 2)), *layers, keras.layers.Dense(3)]), jit_compile=False)
    means = []

    def convert(batch, logs):
        means.append(np.asarray(model.get_layer("norm").moving_mean))
        tfc.convert(model, target="float32")

    qat = tfc.QuantizationAwareTraining(freeze_batch_norm_epoch=1)
    fit(model, qat, keras.callbacks.LambdaCallback(on_train_batch_end=convert), epochs=2)
    assert not np.array_equal(means[0], means[1])
    np.testing.assert_array_equal(means[2], means[1])
    np.testing.assert_array_equal(means[3], means[1])


def test_every_other_step_is_refused():
    methods = {name for name, _ in inspect.getmembers(tfc.QuantizationAwareTraining, callable)}
    for before in Phase:
        for after in Phase:
            allowed = TRANSITIONS.get((before, after), frozenset())
            assert allowed <= methods
            for by in methods:
                state = PhaseState()
                state.now = before
                if by in allowed or after is before:
                    state.move(after, by=by)
                    assert state.now is after
                else:
                    with pytest.raises(TrainingError, match=rf"From {before.name} .* Received: {after.name} by {by}"):
                        state.move(after, by=by)
                    assert state.now is before


def test_every_phase_can_be_reached_and_left_for_float():
    """By moves that the table has; and only a fit's beginning leads into it."""

    def reached(start):
        found, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            new = {after for before, after in TRANSITIONS if before is here} - found
            found |= new
            waiting += new
        return found

    assert all(reached(phase) == set(Phase) for phase in Phase)
    assert {before for before, after in TRANSITIONS if after.in_fit and not before.in_fit} == {FLOAT, INTERRUPTED}
    assert {after for before, after in TRANSITIONS if after.in_fit and not before.in_fit} == {WAITING}


def test_what_each_phase_is():
    assert [phase for phase in Phase if phase.computes == "float"] == [FLOAT, WAITING, INTERRUPTED]
    assert [phase for phase in Phase if phase.intercepts] == [OBSERVING, LEARNING, FROZEN, INFERENCE]
    assert [phase for phase in Phase if phase.in_fit] == [WAITING, OBSERVING, LEARNING, FROZEN]
    assert [phase for phase in Phase if phase.learns] == [OBSERVING, LEARNING]


def test_a_step_before_the_fit_is_refused():
    qat = tfc.QuantizationAwareTraining()
    qat.set_model(dense())
    with pytest.raises(TrainingError, match="on_train_begin must come first"):
        qat.on_epoch_begin(0)


def test_times_of_a_fit():
    by_step = Timetable(begin_step=10, freeze_epoch=0)
    assert [by_step.begins(5, step=step) for step in (9, 10, 11)] == [False, True, True]
    assert by_step.begin == "begin_step=10"
    assert not Timetable().freezes(1, epochs=2, began=0)  # two epochs are too few to freeze the last
    assert Timetable().freezes(2, epochs=3, began=0)
    assert not Timetable().freezes_batch_norm(99)
    assert [Timetable(freeze_batch_norm_epoch=2).freezes_batch_norm(epoch) for epoch in (1, 2)] == [False, True]

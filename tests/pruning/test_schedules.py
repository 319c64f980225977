"""Laws of schedules: bounded, monotone, exact at both ends; and the errors that a wrong one gives."""

import pytest

from tfcompress.pruning import schedules

RISING = [
    schedules.Constant(0.5, begin=3),
    schedules.Polynomial(final=0.9, end=50),
    schedules.Polynomial(final=0.75, initial=0.25, begin=10, end=20, power=1),
    schedules.Cosine(final=0.8, end=60),
    schedules.Cosine(final=0.75, initial=0.25, begin=10, end=20),
    schedules.Join(
        [schedules.Cosine(final=0.5, end=10), 0.5, schedules.Polynomial(final=0.9, initial=0.5, end=30)], [20, 40]
    ),
]


@pytest.mark.parametrize("schedule", RISING, ids=lambda schedule: type(schedule).__name__)
def test_is_bounded_and_never_falls(schedule):
    values = [schedule(step) for step in range(100)]
    assert all(0 <= value < 1 for value in values)
    assert values == sorted(values)


def test_every_public_schedule_is_in_the_table():
    public = {getattr(schedules, name) for name in schedules.__all__}
    assert {type(schedule) for schedule in RISING} == {each for each in public if isinstance(each, type)}


def test_polynomial_is_linear_at_power_one():
    schedule = schedules.Polynomial(final=0.75, initial=0.25, begin=10, end=20, power=1)
    assert (schedule(9), schedule(10), schedule(15), schedule(20), schedule(99)) == (0.0, 0.25, 0.5, 0.75, 0.75)


def test_polynomial_equals_the_toolkits_own(toolkit_schedules):
    theirs = toolkit_schedules.PolynomialDecay(0.1, 0.8, begin_step=5, end_step=45, power=3, frequency=1)
    ours = schedules.Polynomial(final=0.8, initial=0.1, begin=5, end=45)
    resolved = schedules.resolve(theirs)
    for step in range(5, 46):
        assert resolved(step) == pytest.approx(ours(step), abs=1e-6)  # theirs is float32
    assert resolved(1000) == pytest.approx(0.8, abs=1e-6)  # it stops pruning and keeps what it has


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Constant(75), "Write 0.75 for 75 %"),
        (lambda: schedules.Constant(-0.1), "must be a fraction"),
        (lambda: schedules.Constant(1.0), "must be a fraction"),
        (lambda: schedules.Polynomial(final=0.5, begin=9, end=9), "end must come after begin"),
        (lambda: schedules.Polynomial(final=0.5, begin=-1, end=9), "begin must be an optimizer step"),
        (lambda: schedules.Polynomial(final=0.5, end=9, power=0), "power must be above 0"),
        (lambda: schedules.resolve(lambda step: 2.0)(0), "must be a fraction"),
    ],
)
def test_wrong_numbers_are_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("schedule", ["0.5", None, True])
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(TypeError, match="must be a callable"):
        schedules.resolve(schedule)

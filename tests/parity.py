"""How tests compare a lowered file with the model that it came from: by input name, on LiteRT."""

import numpy as np

from tfcompress.tflite.interpreter import open_model


def samples(lowered, count: int = 5, seed: int = 0, highest: int = 9, sizes: dict | None = None) -> dict:
    """Random arrays by input name; dynamic axes get the size that ``sizes`` has for the input, else 7."""
    random = np.random.default_rng(seed)
    arrays = {}
    for spec in lowered.inputs:
        shape = [count, *(size or (sizes or {}).get(spec.name, 7) for size in spec.shape[1:])]
        if spec.dtype.kind in "iu":
            arrays[spec.name] = random.integers(0, highest, shape).astype(spec.dtype)
        else:
            arrays[spec.name] = random.normal(size=shape).astype(spec.dtype)
    return arrays


def worst_error(lowered, expected, arrays: dict) -> float:
    """Largest difference over outputs between the file and ``expected(arrays)``, relative to each output's magnitude.

    ``expected`` returns arrays by output name, or a list in the file's order.
    """
    file = open_model(lowered.content)
    assert {info.name for info in file.inputs} == {spec.name for spec in lowered.inputs} == set(arrays)
    answers = file.run(arrays)
    wanted = expected(arrays)
    if not isinstance(wanted, dict):
        wanted = dict(zip(lowered.outputs, wanted, strict=True))
    assert set(answers) == set(wanted) == set(lowered.outputs)
    errors = []
    for name, value in wanted.items():
        value = np.asarray(value)
        assert answers[name].shape == value.shape, name
        errors.append(np.abs(answers[name] - value).max() / max(np.abs(value).max(), 1e-6))
    for name, value in zip(lowered.outputs, lowered.reference(arrays), strict=True):
        errors.append(np.abs(value - np.asarray(wanted[name])).max() / max(np.abs(value).max(), 1e-6))
    return float(max(errors))

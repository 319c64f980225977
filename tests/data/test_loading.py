"""Samples are the same samples wherever they come from, and bad data is one clear line."""

import io
import itertools
import pickle
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from tfcompress.data import InputSpec, load_labelled, load_representative
from tfcompress.data.readers.array_files import read_npz
from tfcompress.errors import DataError

PICTURE = InputSpec("image", (None, 8, 6, 3), np.float32)
VECTOR = InputSpec("vector", (None, 4), np.float32)
TOKENS = InputSpec("tokens", (None, 5), np.int32)


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)


@pytest.fixture
def tokens():
    return np.random.default_rng(1).integers(0, 1000, size=(11, 5))


def save_images(folder, count=5, size=(6, 8), mode="RGB"):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(count)
    for i in range(count):
        pixels = generator.integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i}.png")


def read_all(samples, size=4):
    batches = list(samples.batches(size))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def sources(x, folder):
    """Every way to hand over the same samples of the one input ``VECTOR``."""
    import tensorflow as tf

    np.save(folder / "x.npy", x)
    np.savez(folder / "named.npz", vector=x, other=x)
    np.savez(folder / "usual.npz", x=x, y=np.zeros(len(x)))
    np.savez_compressed(folder / "lone.npz", anything=x)
    (folder / "holder").mkdir()
    np.save(folder / "holder" / "x.npy", x)
    y = np.zeros(len(x))
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    return {
        "npy": folder / "x.npy",
        "npy as text": str(folder / "x.npy"),
        "npz by name": folder / "named.npz",
        "npz x and y": folder / "usual.npz",
        "npz lone": folder / "lone.npz",
        "folder": folder / "holder",
        "array": x,
        "float64": x.astype(np.float64),
        "tensor": tf.constant(x),
        "dict": {"vector": x},
        "list": [x],
        "x and y": (x, y),
        "samples": list(x),
        "numbers": x.tolist(),
        "tf.data": dataset.map(lambda x, y: x),
        "tf.data pairs": dataset,
        "tf.data batches": dataset.batch(3),
        "tf.data dict": tf.data.Dataset.from_tensor_slices({"vector": x, "weight": y}),
        "generator": (sample for sample in x),
        "generator of pairs": ((sample, 0) for sample in x),
        "generator of batches": ([x[i : i + 2]] for i in range(0, len(x), 2)),
        "function": lambda: iter(x),
        "iterator of dicts": iter([{"vector": x}]),
    }


def test_samples_are_the_same_from_every_source(vectors, tmp_path):
    hashes = {}
    for name, source in sources(vectors, tmp_path).items():
        samples = load_representative(source, [VECTOR])
        batches = list(samples.batches(4))
        assert [len(batch["vector"]) for batch in batches] == [4, 4, 3], name
        np.testing.assert_array_equal(np.concatenate([batch["vector"] for batch in batches]), vectors, err_msg=name)
        assert all(batch["vector"].dtype == np.float32 for batch in batches), name
        assert samples.count == len(vectors), name
        hashes[name] = samples.sha256
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.parametrize("size", [1, 2, 5, 11, 100])
def test_samples_and_hash_do_not_depend_on_the_batch_size(vectors, size):
    samples = load_representative(lambda: (vectors[i : i + 3] for i in range(0, 11, 3)), [VECTOR])
    batches = list(samples.batches(size))
    assert all(len(batch["vector"]) == size for batch in batches[:-1])
    np.testing.assert_array_equal(np.concatenate([batch["vector"] for batch in batches]), vectors)
    assert samples.sha256 == load_representative(vectors, [VECTOR]).sha256


def test_hash_changes_with_one_value_and_with_the_order(vectors):
    changed = vectors.copy()
    changed[7, 1] = np.nextafter(changed[7, 1], np.float32(9))
    hashes = {load_representative(x, [VECTOR]).sha256 for x in (vectors, changed, vectors[::-1])}
    assert len(hashes) == 3


def test_several_inputs_are_found_by_name_or_place(vectors, tokens, tmp_path):
    inputs = [VECTOR, TOKENS]
    np.savez(tmp_path / "both.npz", tokens=tokens, vector=vectors, y=np.zeros(11))
    both = {"tokens": tokens, "vector": vectors}
    for source in [
        tmp_path / "both.npz",
        both,
        [vectors, tokens],
        ((vectors, tokens), np.zeros(11)),
        (both, np.zeros(11)),
        (pair for pair in zip(vectors, tokens, strict=True)),
        ((pair, 0) for pair in zip(vectors, tokens, strict=True)),
        (({"vector": v, "tokens": t}, 0) for v, t in zip(vectors, tokens, strict=True)),
    ]:
        found = read_all(load_representative(source, inputs))
        assert list(found) == ["vector", "tokens"]
        np.testing.assert_array_equal(found["vector"], vectors)
        np.testing.assert_array_equal(found["tokens"], tokens)
        assert found["tokens"].dtype == np.int32


def test_a_list_of_one_input_model_may_hold_autoencoder_pairs(vectors):
    assert load_representative((vectors, vectors), [VECTOR]).count == 11
    assert load_representative([vectors[0], vectors[1]], [VECTOR]).count == 2


def test_npy_is_mapped_rather_than_read(vectors, tmp_path):
    np.save(tmp_path / "x.npy", vectors)
    batch = next(load_representative(tmp_path / "x.npy", [VECTOR]).batches(2))["vector"]
    assert isinstance(batch, np.memmap) or isinstance(batch.base, np.memmap)


def test_fortran_order_and_foreign_byte_order_change_nothing(vectors, tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(vectors).astype(">f4"))
    samples = load_representative(tmp_path / "x.npy", [VECTOR])
    assert samples.sha256 == load_representative(vectors, [VECTOR]).sha256
    np.testing.assert_array_equal(read_all(samples)["vector"], vectors)


def test_a_stream_knows_its_count_and_hash_when_it_was_read(vectors):
    samples = load_representative(lambda: iter(vectors), [VECTOR])
    assert (samples.count, samples.sha256) == (None, None)
    batches = samples.batches(4)
    next(batches)
    assert (samples.count, samples.sha256) == (None, None)
    for _ in batches:
        pass
    assert samples.count == 11 and len(samples.sha256) == 64


def test_a_generator_is_read_once_and_a_dataset_again(vectors):
    import tensorflow as tf

    generator = load_representative((v for v in vectors), [VECTOR])
    assert sum(1 for _ in generator.batches(4)) == 3
    with pytest.raises(DataError, match="A generator can be read once"):
        next(generator.batches(4))
    dataset = load_representative(tf.data.Dataset.from_tensor_slices(vectors), [VECTOR])
    assert sum(1 for _ in dataset.batches(4)) == sum(1 for _ in dataset.batches(4)) == 3


def test_a_dataset_that_repeats_for_ever_is_refused(vectors):
    import tensorflow as tf

    with pytest.raises(DataError, match=r"Call \.take\(n\)"):
        load_representative(tf.data.Dataset.from_tensor_slices(vectors).repeat(), [VECTOR])


def test_dynamic_axes_keep_their_sizes_and_split_batches():
    spec = InputSpec("x", (None, None, 2), np.float32)
    stream = [np.zeros((3, 2)), np.ones((3, 2)), np.zeros((5, 2)), np.zeros((3, 2))]
    shapes = [batch["x"].shape for batch in load_representative(iter(stream), [spec]).batches(8)]
    assert shapes == [(2, 3, 2), (1, 5, 2), (1, 3, 2)]


@pytest.mark.parametrize(
    ("received", "wanted", "expected"),
    [
        (np.array([[0, 255]], np.uint8), np.float32, [[0.0, 255.0]]),
        (np.array([[True, False]]), np.float32, [[1.0, 0.0]]),
        (np.array([[0.1, 2.0]], np.float64), np.float32, np.array([[0.1, 2.0]], np.float32)),
        (np.array([[-(2**31), 2**31 - 1]], np.int64), np.int32, [[-(2**31), 2**31 - 1]]),
        (np.array([[0, 127]], np.uint8), np.int8, [[0, 127]]),
        (np.array([[0, 255]], np.int64), np.uint8, [[0, 255]]),
        (np.array([[0.5, 1.0]], np.float32), np.float16, [[0.5, 1.0]]),
    ],
)
def test_safe_casts_keep_every_value(received, wanted, expected):
    batch = read_all(load_representative(received, [InputSpec("x", (None, 2), wanted)]))["x"]
    assert batch.dtype == wanted
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize(
    ("received", "wanted", "message"),
    [
        (np.array([[0, 128]]), np.int8, "Received: 128 in sample 0"),
        (np.array([[0, 0], [0, -1]]), np.uint8, "Received: -1 in sample 1"),
        (np.array([[0, 2**31]]), np.int32, "Received: 2147483648 in sample 0"),
        (np.array([[0.0, 1e39]]), np.float32, "range. Received: 1e[+]39 in sample 0"),
        (np.array([[0.0, 1.0]]), np.int32, "'x' int32 .any, 2. takes no float64. Received: float64 .1, 2."),
        (np.array([[0.0, 1j]]), np.float32, "takes real numbers. Received: complex128"),
        (np.array([["a", "b"]]), np.float32, "takes real numbers. Received: <U1"),
        (np.array([[None, 1]]), np.float32, "takes real numbers. Received: object"),
        (np.array([["2020-01-01", "2020-01-02"]], "M8[D]"), np.float32, "takes real numbers. Received: datetime64"),
        (np.array([[0, 1]]), np.bool_, "takes no int64"),
    ],
)
def test_unsafe_casts_name_the_input_and_the_value(received, wanted, message):
    with pytest.raises(DataError, match=message):
        read_all(load_representative(received, [InputSpec("x", (None, 2), wanted)]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_input_and_first_sample(vectors, value):
    vectors[[5, 9], 2] = value
    for source in (vectors, (v for v in vectors), (vectors[i : i + 2] for i in range(0, 11, 2))):
        with pytest.raises(DataError, match=f"Input 'vector' .* finite values. Received: {value} in sample 5"):
            read_all(load_representative(source, [VECTOR]), size=3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10, 5), r"samples of shape \(4,\). Received: float64 \(10, 5\) in the data"),
        ((10, 4, 1), r"Received: float64 \(10, 4, 1\)"),
        ((5,), r"Received: float64 \(5,\)"),
        ((0, 4), "at least one sample. Received: none"),
    ],
)
def test_shapes_that_do_not_fit_say_expected_and_received(shape, message):
    with pytest.raises(DataError, match=message):
        load_representative(np.zeros(shape), [VECTOR])


def test_a_missing_channel_axis_gets_its_own_advice():
    with pytest.raises(DataError, match=re.escape("Add the channel axis: x[..., None]")):
        load_representative(np.zeros((10, 8, 8)), [InputSpec("x", (None, 8, 8, 1), np.float32)])


def test_wrong_element_of_a_stream_is_named(vectors):
    samples = load_representative(iter([vectors[0], vectors[1], vectors[2, :3]]), [VECTOR])
    with pytest.raises(DataError, match=r"Received: float32 \(3,\) in sample 2"):
        read_all(samples)


@pytest.mark.parametrize("source", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_no_samples_are_refused(source):
    with pytest.raises(DataError, match="at least one sample"):
        read_all(load_representative(source, [VECTOR]))


def test_inputs_of_different_lengths_are_refused(vectors, tokens):
    with pytest.raises(DataError, match="vector 11, tokens 10"):
        load_representative([vectors, tokens[:10]], [VECTOR, TOKENS])


def test_unknown_names_are_listed(vectors, tmp_path):
    np.savez(tmp_path / "a.npz", one=vectors, two=vectors)
    with pytest.raises(DataError, match="'vector' or one of x, images, input, samples. Received: one, two in .*a.npz"):
        load_representative(tmp_path / "a.npz", [VECTOR])
    with pytest.raises(DataError, match="by input name: vector, tokens. Received: vector in the dictionary"):
        load_representative({"vector": vectors}, [VECTOR, TOKENS])


def test_two_inputs_need_two_arrays(vectors, tmp_path):
    np.save(tmp_path / "x.npy", vectors)
    save_images(tmp_path / "images")
    for source in (tmp_path / "x.npy", tmp_path / "images", vectors, [vectors, vectors, vectors]):
        with pytest.raises(DataError, match="inputs"):
            load_representative(source, [VECTOR, TOKENS])


@pytest.mark.parametrize("source", [7, None, object()], ids=["int", "None", "object"])
def test_sources_of_no_known_kind_are_a_type_error(source):
    with pytest.raises(TypeError, match=type(source).__name__):
        load_representative(source, [VECTOR])
    with pytest.raises(TypeError, match=type(source).__name__):
        load_labelled(source, [VECTOR])


def test_wrong_arguments_are_value_errors(vectors):
    with pytest.raises(ValueError, match="scaling must be one of raw, zero_one, minus_one_one"):
        load_representative(vectors, [VECTOR], scaling="zero")
    with pytest.raises(ValueError, match="size must be at least 1. Received: size=0"):
        load_representative(vectors, [VECTOR]).batches(0)
    with pytest.raises(ValueError, match="inputs must name each input"):
        load_representative(vectors, [])
    with pytest.raises(ValueError, match="shape must begin with the batch axis"):
        InputSpec("x", (), np.float32)


# Images.


def test_images_are_sorted_and_found_at_any_depth(tmp_path):
    spec = InputSpec("image", (None, 2, 2, 1), np.uint8)
    for i, name in enumerate(["b/2.png", "a/deep/0.png", "a/deeper/1.bmp", "c.PNG", ".hidden/x.png", "._c.png"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), i).save(tmp_path / name, format="png")
    (tmp_path / "notes.txt").write_text("no picture")
    found = read_all(load_representative(tmp_path, [spec]))["image"]
    np.testing.assert_array_equal(found[:, 0, 0, 0], [1, 2, 0, 3])


def test_images_are_what_pillow_decodes(tmp_path):
    save_images(tmp_path)
    found = read_all(load_representative(tmp_path, [PICTURE], scaling="raw"), size=2)["image"]
    assert found.shape == (5, 8, 6, 3) and found.dtype == np.float32
    with Image.open(tmp_path / "3.png") as image:
        np.testing.assert_array_equal(found[3], np.asarray(image))


def test_scaling_maps_the_ends_of_the_pixel_range(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "ends.png")
    for dtype, scaling, expected in [
        (np.float32, None, [0, 1]),
        (np.float32, "zero_one", [0, 1]),
        (np.float32, "minus_one_one", [-1, 1]),
        (np.float32, "raw", [0, 255]),
        (np.uint8, None, [0, 255]),
        (np.int32, "raw", [0, 255]),
    ]:
        spec = InputSpec("image", (None, 1, 2, 1), dtype)
        found = read_all(load_representative(tmp_path, [spec], scaling=scaling))["image"]
        np.testing.assert_array_equal(found.ravel(), expected)
    with pytest.raises(DataError, match="An integer input takes raw pixels. Received: scaling='zero_one'"):
        load_representative(tmp_path, [InputSpec("image", (None, 1, 2, 1), np.uint8)], scaling="zero_one")


def test_scaling_of_arrays_is_for_8_bit_pixels():
    spec = InputSpec("x", (None, 2), np.float32)
    pixels = np.array([[0, 255]], np.uint8)
    np.testing.assert_array_equal(read_all(load_representative(pixels, [spec], scaling="zero_one"))["x"], [[0, 1]])
    with pytest.raises(DataError, match="scaling applies to 8-bit pixels"):
        read_all(load_representative(pixels / 255, [spec], scaling="zero_one"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "PA"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_the_channels_of_the_input(tmp_path, mode, channels):
    suffix = "tiff" if mode == "PA" else "png"
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 128 << 8, np.uint16))
    else:
        image = Image.new("RGBA", (4, 4), (128, 128, 128, 255)).convert("LA" if mode == "PA" else mode)
    image.save(tmp_path / f"a.{suffix}")
    spec = InputSpec("image", (None, 2, 2, channels), np.uint8)
    found = read_all(load_representative(tmp_path, [spec]))["image"]
    assert found.shape == (1, 2, 2, channels)
    if mode != "1":  # black and white has no grey
        assert set(np.unique(found[..., :3])) == {128}


def test_palettes_with_transparency_and_float_pictures(tmp_path):
    image = Image.new("P", (4, 4))
    image.save(tmp_path / "a.png", transparency=b"\x00\x7f")
    assert load_representative(tmp_path, [PICTURE]).count == 1
    read_all(load_representative(tmp_path, [PICTURE]))
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(DataError, match="b.tiff .32-bit float pixels."):
        read_all(load_representative(tmp_path, [PICTURE]))


def test_dynamic_height_and_width_keep_the_pictures_sizes(tmp_path):
    save_images(tmp_path / "a", 2, size=(6, 8))
    save_images(tmp_path / "b", 1, size=(3, 4))
    spec = InputSpec("image", (None, None, None, 3), np.float32)
    shapes = [batch["image"].shape for batch in load_representative(tmp_path, [spec]).batches(8)]
    assert shapes == [(2, 8, 6, 3), (1, 4, 3, 3)]


@pytest.mark.parametrize("shape", [(None, 4), (None, 8, 8, 2), (None, 3, 8, 8), (None, 8, None, 3), (None, 2, 8, 8, 3)])
def test_inputs_that_are_no_pictures_refuse_a_folder_of_images(tmp_path, shape):
    save_images(tmp_path)
    with pytest.raises(DataError, match="A folder of images needs an input of shape"):
        load_representative(tmp_path, [InputSpec("x", shape, np.float32)])


def test_a_corrupt_image_is_named(tmp_path):
    save_images(tmp_path)
    content = (tmp_path / "2.png").read_bytes()
    for bad in (content[:60], b"", b"no picture at all", content[:-40]):
        (tmp_path / "2.png").write_bytes(bad)
        with pytest.raises(DataError, match=r"readable. Received: .*2\.png \(.+\). Replace or remove it\.$"):
            read_all(load_representative(tmp_path, [PICTURE]))


@pytest.mark.parametrize("side", [9_600, 14_000])  # beyond Pillow's warning and beyond its error
def test_a_decompression_bomb_is_refused(tmp_path, side):
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="at most .* pixels. Received: .*bomb.png"):
        read_all(load_representative(tmp_path, [PICTURE]))


# Bad files and folders.


def test_missing_and_empty_places_are_named(tmp_path, vectors):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a")
    (tmp_path / "two").mkdir()
    np.save(tmp_path / "two" / "a.npy", vectors)
    np.save(tmp_path / "two" / "b.npy", vectors)
    save_images(tmp_path / "mixed")
    np.save(tmp_path / "mixed" / "a.npy", vectors)
    for name, message in [
        ("missing.npy", "The data must exist. Received: .*missing.npy"),
        ("empty", r"must hold images .*Received: .*empty \(it is empty\)"),
        ("text", r"must hold images .*Received: .*text \(only .txt\)"),
        ("text/a.txt", "Data must be .npy, .npz or a folder. Received: .*a.txt"),
        ("two", "with a.npy, b.npy. Name the file itself"),
        ("mixed", "with a.npy and images. Name the file itself"),
    ]:
        with pytest.raises(DataError, match=message):
            load_representative(tmp_path / name, [VECTOR])
        with pytest.raises(DataError):
            load_labelled(tmp_path / name, [VECTOR])


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_truncated_and_foreign_files_are_named(tmp_path, vectors, name):
    path = tmp_path / name
    np.save(path, vectors) if path.suffix == ".npy" else np.savez(path, x=vectors)
    whole = path.read_bytes()
    for bad in (whole[:-50], whole[:20], b"", b"not an array", pickle.dumps([1])):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=rf"Received: .*{re.escape(name)} \(.+\). Save it again"):
            read_all(load_representative(path, [VECTOR]))


def test_objects_are_unpickled_only_when_it_is_allowed(tmp_path, vectors):
    objects = np.empty(11, dtype=object)
    objects[:] = list(vectors)
    np.save(tmp_path / "a.npy", objects)
    np.savez(tmp_path / "a.npz", x=objects, y=np.zeros(11))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="can run code .*--allow_unsafe"):
            load_representative(tmp_path / name, [VECTOR])
        samples = load_representative(tmp_path / name, [VECTOR], allow_pickle=True)
        np.testing.assert_array_equal(read_all(samples)["vector"], vectors)
    objects[3] = vectors[3, :2]
    np.save(tmp_path / "ragged.npy", objects)
    with pytest.raises(DataError, match="Objects must be arrays of one shape"):
        load_representative(tmp_path / "ragged.npy", [VECTOR], allow_pickle=True)


def test_unused_arrays_of_objects_are_not_touched(tmp_path, vectors):
    np.savez(tmp_path / "a.npz", vector=vectors, note=np.array([{}], dtype=object))
    assert load_representative(tmp_path / "a.npz", [VECTOR]).count == 11


# Malformed files.


def whole_files():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(6, 4)).astype(np.float32)
    files = {}
    for name, write in [
        ("a.npy", lambda file: np.save(file, x)),
        ("a.npz", lambda file: np.savez(file, x=x, y=np.arange(6))),
        ("b.npz", lambda file: np.savez_compressed(file, x=x, y=np.arange(6))),
    ]:
        buffer = io.BytesIO()
        write(buffer)
        files[name] = buffer.getvalue()
    for name, form in [("a.png", "png"), ("a.jpg", "jpeg"), ("a.gif", "gif"), ("a.tiff", "tiff")]:
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, size=(9, 9, 3), dtype=np.uint8)).save(buffer, form)
        files[name] = buffer.getvalue()
    return files


def mutate(content, generator):
    content = bytearray(content)
    # Headers decide most; half of the changes go there.
    reach = min(200, len(content)) if generator.random() < 0.5 else len(content)
    for _ in range(generator.integers(1, 9)):
        match generator.integers(3):
            case 0:
                content[generator.integers(reach)] = generator.integers(256)
            case 1:
                content[generator.integers(reach)] ^= 1 << int(generator.integers(8))
            case 2:
                i = int(generator.integers(reach))
                content[i : i + 4] = generator.bytes(4)
    return bytes(content[: generator.integers(len(content))] if generator.random() < 0.2 else content)


def fuzz(rounds, seed, folder):
    generator = np.random.default_rng(seed)
    outcomes = {"read": 0, "refused": 0}
    for i, (name, content) in zip(range(rounds), itertools.cycle(whole_files().items())):
        place = folder / str(i)
        place.mkdir()
        (place / name).write_bytes(mutate(content, generator))
        spec = PICTURE if name[2:] in ("png", "jpg", "gif", "tiff") else VECTOR
        for load in (lambda *source: read_all(load_representative(*source)), load_labelled):
            try:
                load(place, [spec])
                outcomes["read"] += 1
            except DataError as error:
                assert "\n" not in str(error), name
                outcomes["refused"] += 1
    return outcomes


def test_mutated_files_are_read_or_refused(tmp_path):
    outcomes = fuzz(200, 0, tmp_path)
    assert min(outcomes.values()) > 20, outcomes


@pytest.mark.fuzz
def test_many_mutated_files_are_read_or_refused(tmp_path):
    fuzz(2000, 1, tmp_path)


def test_no_framework_is_loaded_for_what_needs_none(tmp_path, vectors):
    np.savez(tmp_path / "x.npz", x=vectors, y=np.zeros(11))
    save_images(tmp_path / "pictures" / "cat")
    code = f"""
import sys
import zipfile
import numpy as np
from tfcompress.data import InputSpec, TFRecords, load_labelled, load_representative
vector, picture = InputSpec("v", (None, 4), np.float32), InputSpec("p", (None, 8, 6, 3), np.float32)
load_labelled(r"{tmp_path}/x.npz", [vector])
load_labelled(r"{tmp_path}/pictures", [picture])
list(load_representative((row for row in np.zeros((3, 4))), [vector]).batches(2))
TFRecords("people.tfrecord", {{"v": "v"}})
print(*{{"tensorflow", "keras", "torch", "jax"}} & set(sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def npy(array, *, shape=None):
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape or array.shape}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "said", "words"),
    [
        ([("x.npy", npy(np.zeros(4, "f4"), shape=(1 << 40,)))], None, "declares"),
        ([("x.npy", npy(np.zeros(4, "f4"))), ("x.npy", npy(np.ones(4, "f4")))], None, "one name"),
        ([("x.npy", npy(np.zeros(4, "f4")))], 5 << 30, "would unpack to 5368709120 bytes"),
    ],
    ids=["shape", "twice", "bomb"],
)
def test_archives_that_lie_about_their_size_are_refused_before_they_are_unpacked(tmp_path, members, said, words):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        if said is not None:
            archive.infolist()[0].file_size = said
    with pytest.raises(DataError, match=words):
        load_representative(tmp_path / "x.npz", [VECTOR])


def test_blank_arrays_that_pack_well_are_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1 << 16, 64), "f4"))
    assert read_npz(tmp_path / "x.npz")["x"].shape == (1 << 16, 64)

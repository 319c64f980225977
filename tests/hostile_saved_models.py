"""SavedModel folders that run code or reach files, made with TensorFlow itself; and honest ones, of both its versions.

A table for tests and benchmarks: each maker gets an empty folder and the path of a file that the model tries to touch.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.trackable.resource import TrackableResource

from tfcompress.system.quiet import converter_silenced

Make = Callable[[Path, Path], None]
INPUT = tf.TensorSpec((None, 2), name="x")


def saved(folder: Path, step: Callable, *, resource: TrackableResource | None = None) -> None:
    """Writes a model that doubles its input and takes the step on the way."""

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.resource = resource
            self.scale = tf.Variable(2.0)

        @tf.function(input_signature=(INPUT,))
        def go(self, x):
            return {"y": step(x) * self.scale}

    model = Model()
    with converter_silenced():
        tf.saved_model.save(model, str(folder), signatures=model.go)


class AtLoading(TrackableResource):
    """Takes a step while the model is loaded."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=(), shared_name="own")

    def _initialize(self):
        self.step()


def at_loading(step: Callable[[str], object]) -> Make:
    def make(folder, marker):
        saved(folder, tf.identity, resource=AtLoading(lambda: step(str(marker))))

    return make


def when_called(step: Callable[[tf.Tensor, str], tf.Tensor]) -> Make:
    return lambda folder, marker: saved(folder, lambda x: step(x, str(marker)))


def edited(edit: Callable) -> Make:
    """An honest model whose graph is edited as bytes on a disk can be."""

    def make(folder, marker):
        honest_module(folder)
        path = folder / "saved_model.pb"
        model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        edit(model.meta_graphs[0], str(marker))
        path.write_bytes(model.SerializeToString())

    return make


def honest_module(folder: Path) -> None:
    saved(folder, tf.nn.relu)


def _summary(marker):
    writer = tf.raw_ops.SummaryWriter(shared_name="w")
    tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir=str(Path(marker).parent), max_queue=1, flush_millis=1, filename_suffix="touched"
    )
    tf.raw_ops.WriteScalarSummary(writer=writer, step=0, tag="t", value=1.0)
    tf.raw_ops.FlushSummaryWriter(writer=writer)


def _write(x, marker):
    tf.io.write_file(marker, "text")
    return x


def _py_function(x, marker):
    y = tf.py_function(lambda value: value, [x], tf.float32)
    return tf.reshape(y, (-1, 2))


def _constant_of_a_file(x, marker):
    return x + tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=(2,), memory_region_name=marker)


def _checkpoint_written(x, marker):
    tf.raw_ops.SaveV2(prefix=marker, tensor_names=["x"], shape_and_slices=[""], tensors=[x])
    return x


def _checkpoint_read(x, marker):
    return x + tf.raw_ops.RestoreV2(prefix=marker, tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])[0]


def _schema_of_a_file(x, marker):
    _, values = tf.raw_ops.DecodeProtoV2(
        bytes=tf.as_string(x), message_type="m", field_names=["f"], output_types=[tf.float32], descriptor_source=marker
    )
    return x + tf.reduce_sum(values[0])


def _dataset(x, marker):
    lines = tf.data.TextLineDataset(marker).reduce(0.0, lambda total, line: total + tf.strings.to_number(line))
    return x + lines


def _table_of_a_file(x, marker):
    table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="t")
    tf.raw_ops.InitializeTableFromTextFileV2(table_handle=table, filename=marker, key_index=-2, value_index=-1)
    return x


def _in_a_loop(x, marker):
    def body(i, value):
        tf.raw_ops.WriteFile(filename=marker, contents="text")
        return i + 1, value

    return tf.while_loop(lambda i, value: i < 2, body, [0, x])[1]


def _checkpoint_at_loading(marker):
    tf.raw_ops.SaveV2(prefix=marker, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant(1.0)])


def _other_op(meta, marker):
    next(
        node for each in meta.graph_def.library.function for node in each.node_def if node.op == "Relu"
    ).op = "Backdoor"


def _foreign_function(meta, marker):
    node = next(node for node in meta.graph_def.node if node.op == "StatefulPartitionedCall")
    node.attr["f"].func.name = "WriteFile"


def _two_of_one_name(meta, marker):
    meta.graph_def.library.function.add().CopyFrom(meta.graph_def.library.function[0])


def _asset_outside(meta, marker):
    meta.asset_file_def.add(filename=os.path.relpath(marker, "/tmp/a/b"))


def _saved_when_restored(meta, marker):
    name = meta.saver_def.save_tensor_name.partition(":")[0]
    meta.saver_def.restore_op_name = name


def _large_constant(meta, marker):
    node = meta.graph_def.node.add(name="large", op="Const")
    node.attr["value"].tensor.dtype = node.attr["dtype"].type = 1
    node.attr["value"].tensor.tensor_shape.dim.add(size=1 << 40)
    node.attr["value"].tensor.float_val.append(1.0)


def _link_to_a_file(folder, marker):
    honest_module(folder)
    (data,) = (folder / "variables").glob("*.data-*")
    marker.with_name("private").write_bytes(data.read_bytes())
    data.unlink()
    data.symlink_to(marker.with_name("private"))


HOSTILE: dict[str, tuple[Make, str]] = {
    "prints to a file while it is loaded": (
        at_loading(lambda marker: tf.print("text", output_stream=f"file://{marker}")),
        "the op PrintV2",
    ),
    "writes events while it is loaded": (at_loading(_summary), "the op SummaryWriter"),
    "writes a file while it is loaded": (
        at_loading(lambda marker: tf.io.write_file(marker, "text")),
        "the op WriteFile",
    ),
    "writes a checkpoint while it is loaded": (at_loading(_checkpoint_at_loading), "the op SaveV2 on a file"),
    "writes a file": (when_called(_write), "the op WriteFile"),
    "writes a file in a loop": (when_called(_in_a_loop), "the op WriteFile"),
    "reads a file": (when_called(lambda x, m: x + tf.strings.to_number(tf.io.read_file(m))), "the op ReadFile"),
    "lists files": (when_called(lambda x, m: x + len(m + str(tf.io.matching_files(m)))), "the op MatchingFiles"),
    "calls Python": (when_called(_py_function), "the op EagerPyFunc"),
    "maps a file": (when_called(_constant_of_a_file), "the op ImmutableConst"),
    "writes a checkpoint": (when_called(_checkpoint_written), "the op SaveV2 on a file"),
    "reads a checkpoint": (when_called(_checkpoint_read), "the op RestoreV2 on a file"),
    "reads a schema": (when_called(_schema_of_a_file), "the op DecodeProtoV2"),
    "reads a dataset": (when_called(_dataset), "Dataset"),
    "reads a vocabulary": (when_called(_table_of_a_file), "the op InitializeTableFromTextFileV2 on a file"),
    "an op that TensorFlow has not": (edited(_other_op), "the op Backdoor"),
    "a function that is an op": (edited(_foreign_function), "the function 'WriteFile' from outside"),
    "two functions of one name": (edited(_two_of_one_name), "name of their own"),
    "an asset outside": (edited(_asset_outside), "outside of the folder assets"),
    "saves where it restores": (edited(_saved_when_restored), "the op MergeV2Checkpoints on a file"),
    "a constant of 4 TiB": (edited(_large_constant), "constants of"),
    "weights that are a link": (_link_to_a_file, "a link, a pipe or a device"),
}
"""Makers by what their model does, with the words of the refusal."""


def honest_with_tables(folder: Path) -> None:
    """Random numbers, branches, loops, checks, tables and a vocabulary in the assets."""
    (folder.parent / "words.txt").write_text("a\nb\n")

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            keys, values = tf.constant([1, 2], tf.int64), tf.constant([3.0, 4.0])
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)
            words = tf.lookup.TextFileInitializer(str(folder.parent / "words.txt"), tf.string, -2, tf.int64, -1)
            self.words = tf.lookup.StaticVocabularyTable(words, 1)
            self.kernel = tf.Variable(np.ones((2, 2), "float32"))
            self.random = tf.random.Generator.from_seed(1)

        @tf.function(input_signature=(tf.TensorSpec((None,), tf.string, "text"),))
        def find(self, text):
            return {"index": self.words.lookup(text)}

        @tf.function(input_signature=(INPUT,))
        def train(self, x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.nn.dropout(x @ self.kernel, 0.5))
            self.kernel.assign_sub(tape.gradient(loss, self.kernel))
            return {"loss": loss}

        @tf.function(input_signature=(INPUT,))
        def go(self, x):
            tf.debugging.assert_less(x, 1e9)
            y = x @ self.kernel + self.table.lookup(tf.cast(x, tf.int64)) + self.random.normal(())
            for _ in tf.range(3):
                y = tf.cond(tf.reduce_sum(y) > 0, lambda y=y: y * 2, lambda y=y: y)
            return {"y": y}

    model = Model()
    with converter_silenced():
        signatures = {"go": model.go, "train": model.train, "find": model.find}
        tf.saved_model.save(model, str(folder), signatures=signatures)


def honest_of_tensorflow_1(folder: Path) -> None:
    """Reference variables, a loop, a branch, dropout and a training step in one graph."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session, converter_silenced():
        x = v1.placeholder(tf.float32, (None, 6, 5), name="x")
        weight = v1.get_variable("weight", (5, 3), use_resource=False)
        hidden = tf.map_fn(lambda row: tf.nn.dropout(row @ weight, rate=0.1), x)
        y = tf.cond(tf.reduce_sum(hidden) > 0, lambda: hidden * 2, lambda: hidden)
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(y))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})


def honest_recurrent(folder: Path) -> None:
    """A recurrent tf_keras model, with the kernels of other devices in its functions."""
    import tf_keras

    layers = [tf_keras.layers.Input((6,)), tf_keras.layers.Embedding(9, 4), tf_keras.layers.LSTM(4, dropout=0.1)]
    with converter_silenced():
        tf_keras.Sequential(layers).save(folder, save_format="tf")


HONEST: dict[str, Callable[[Path], None]] = {
    "module": honest_module,
    "tables": honest_with_tables,
    "tensorflow 1": honest_of_tensorflow_1,
    "recurrent": honest_recurrent,
}

"""A file whose numbers lead nowhere is refused in one line, by every command, before an interpreter or an allocation sees it."""

import copy
import re

import numpy as np
import pytest

from tfcompress.cli import main
from tfcompress.errors import ModelError
from tfcompress.layers.signatures import unique_names
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.inspection import inspect


def parsed():
    """A model of two ops on a (1, 4) float tensor, with a signature and a metadata entry."""
    schema = flatbuffer.schema()
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT(), schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.name = [], b"main"
    for name in (b"x", b"between", b"y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, np.array([1, 4], np.int32), 0
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([2], np.int32)
    graph.operators = [flatbuffer.new_operator(model, name, [i], [i + 1]) for i, name in enumerate(("RELU", "TANH"))]
    model.subgraphs = [graph]
    flatbuffer.set_signature(model, ["x"], ["y"])
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"note", 1
    model.metadata = [entry]
    return model


def called(model, op, **numbers):
    """The model with an op that runs subgraphs in place of its first."""
    operator = flatbuffer.new_operator(model, op, [0], [1])
    word = "".join(part.capitalize() for part in op.split("_"))
    operator.builtinOptionsType = getattr(flatbuffer.schema().BuiltinOptions, f"{word}Options")
    operator.builtinOptions = getattr(flatbuffer.schema(), f"{word}OptionsT")()
    for name, number in numbers.items():
        setattr(operator.builtinOptions, name, number)
    model.subgraphs[0].operators[0] = operator


def sparse(model):
    parameters = flatbuffer.schema().SparsityParametersT()
    parameters.traversalOrder, parameters.dimMetadata = np.array([0, 7], np.int32), []
    model.subgraphs[0].tensors[1].sparsity = parameters


def blockwise(model):
    tensor = model.subgraphs[0].tensors[1]
    tensor.quantization = flatbuffer.schema().QuantizationParametersT()
    tensor.quantization.detailsType = flatbuffer.schema().QuantizationDetails.BlockwiseQuantization
    tensor.quantization.details = flatbuffer.schema().BlockwiseQuantizationT()
    tensor.quantization.details.scales = 40


def external(model):
    model.subgraphs[0].tensors[1].externalBuffer = 1


def circle(model):
    """Two subgraphs that run each other."""
    called(model, "CALL_ONCE", initSubgraphIndex=1)
    second = copy.copy(model.subgraphs[0])
    operator = copy.copy(model.subgraphs[0].operators[0])
    operator.builtinOptions = copy.copy(operator.builtinOptions)
    operator.builtinOptions.initSubgraphIndex = 0
    second.operators = [operator]
    model.subgraphs.append(second)


def ints(values):
    return np.array(values, np.int32)


def graph_of(model):
    return model.subgraphs[0]


WAYS = {
    "tensor of an op": (lambda m: setattr(graph_of(m).operators[0], "inputs", ints([3])), "names tensor 3 of 3"),
    "tensor below an op": (lambda m: setattr(graph_of(m).operators[0], "outputs", ints([-2])), "names tensor -2 of 3"),
    "intermediate": (lambda m: setattr(graph_of(m).operators[1], "intermediates", ints([9])), "names tensor 9"),
    "input": (lambda m: setattr(graph_of(m), "inputs", ints([-1])), "an input of subgraph 0 names tensor -1"),
    "output": (lambda m: setattr(graph_of(m), "outputs", ints([5])), "an output of subgraph 0 names tensor 5"),
    "op code": (lambda m: setattr(graph_of(m).operators[1], "opcodeIndex", 8), "names op code 8 of 2"),
    "buffer": (lambda m: setattr(graph_of(m).tensors[1], "buffer", 77), "names buffer 77 of 2"),
    "metadata": (lambda m: setattr(m.metadata[0], "buffer", 2), "a metadata entry names buffer 2 of 2"),
    "signature's subgraph": (lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 1), "signature 0 names subgraph 1"),
    "signature's tensor": (lambda m: setattr(m.signatureDefs[0].outputs[0], "tensorIndex", 3), "names tensor 3 of 3"),
    "WHILE": (lambda m: called(m, "WHILE", condSubgraphIndex=6, bodySubgraphIndex=7), "names subgraph 6 of 1"),
    "IF": (lambda m: called(m, "IF", thenSubgraphIndex=-3), "names subgraph -3 of 1"),
    "CALL_ONCE": (lambda m: called(m, "CALL_ONCE", initSubgraphIndex=2), "names subgraph 2 of 1"),
    "CALL": (lambda m: called(m, "CALL", subgraph=1), "names subgraph 1 of 1"),
    "itself": (lambda m: called(m, "CALL_ONCE", initSubgraphIndex=0), "subgraph 0 runs itself"),
    "WHILE without options": (
        lambda m: graph_of(m).operators.__setitem__(0, flatbuffer.new_operator(m, "WHILE", [0], [1])),
        "subgraph 0 runs itself",
    ),
    "circle": (circle, "subgraph 0 runs itself"),
    "negative size": (lambda m: setattr(graph_of(m).tensors[1], "shape", ints([1, -4])), r"has the shape \[1, -4\]"),
    "huge": (lambda m: setattr(graph_of(m).tensors[0], "shape", ints([1, 1 << 16, 1 << 15])), "2 GiB or more"),
    "huge signature": (
        lambda m: setattr(graph_of(m).tensors[0], "shapeSignature", ints([-1, 1 << 16, 40_000])),
        "2 GiB or more",
    ),
    "signature below -1": (lambda m: setattr(graph_of(m).tensors[0], "shapeSignature", ints([-1, -9])), "the shape"),
    "sparse": (sparse, "in an order that is not that of its axes"),
    "blocks": (blockwise, "names tensor 40 of 3 for its scales"),
    "other files": (external, "keeps its weights in other files"),
    "no subgraph": (lambda m: setattr(m, "subgraphs", []), "it has no subgraph"),
}


def contradictory(name):
    model = parsed()
    WAYS[name][0](model)
    return flatbuffer.pack(model)


def test_the_model_is_sound():
    assert inspect(flatbuffer.pack(parsed())).trial.refusal is None


@pytest.mark.parametrize("name", WAYS)
def test_a_number_that_leads_nowhere_is_one_line(name):
    with pytest.raises(ModelError, match=f"^the file is damaged: .*{WAYS[name][1]}") as caught:
        flatbuffer.parse(contradictory(name), place="the file")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "commands"),
    [("WHILE", ("inspect", "measure", "convert", "compare")), ("huge signature", ("inspect", "measure"))],
    ids=["WHILE", "huge signature"],
)
def test_every_command_says_the_same(name, commands, tmp_path, capsys):
    path = tmp_path / "bad.tflite"
    path.write_bytes(contradictory(name))
    said = set()
    for command in commands:
        flags = {"convert": [f"--output={tmp_path}/out.tflite"], "compare": [f"--model={path},{path}"]}
        assert main([command, *flags.get(command, []), *([f"--model={path}"] if command != "compare" else [])]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        said.add(re.search("(?:bad.tflite|model) is damaged: (.*)", line)[1])
    assert len(said) == 1
    assert not (tmp_path / "out.tflite").exists()


def test_one_text_for_every_tensor_is_not_copied_for_each():
    """A file of a megabyte whose thousand tensors share one name of a megabyte."""
    model = parsed()
    tensors = model.subgraphs[0].tensors
    tensors += [copy.copy(tensors[0]) for _ in range(1000)]
    tensors[0].name = b"n" * 1_000_000
    data = bytearray(flatbuffer.pack(model))
    root = flatbuffer.schema().Model.GetRootAsModel(data, 0)
    graph = root.Subgraphs(0)
    texts = [graph.Tensors(i)._tab for i in range(graph.TensorsLength())]
    places = [tab.Pos + tab.Offset(10) for tab in texts]
    target = places[0] + int.from_bytes(data[places[0] : places[0] + 4], "little")
    for place in places[1:]:
        if target > place:
            data[place : place + 4] = (target - place).to_bytes(4, "little")
    with pytest.raises(ModelError, match="bytes of text and numbers where it has room for"):
        flatbuffer.parse(bytes(data))


def test_names_of_many_equal_tensors_are_found_one_by_one():
    model = parsed()
    first = model.subgraphs[0].tensors[0]
    model.subgraphs[0].tensors = [copy.copy(first) for _ in range(20_000)]
    flatbuffer.unique_names(model)  # 200 million steps if each name began to count at 1
    names = [tensor.name for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == 20_000
    assert names[:3] == [b"x", b"x_1", b"x_2"] and names[-1] == b"x_19999"


def test_names_that_are_taken_already_are_passed_over():
    model = parsed()
    for tensor, name in zip(model.subgraphs[0].tensors, (b"x_1", b"x", b"x"), strict=True):
        tensor.name = name
    flatbuffer.unique_names(model)
    assert [tensor.name for tensor in model.subgraphs[0].tensors] == [b"x_1", b"x", b"x_2"]


def test_names_of_many_equal_inputs_stay_short():
    names = unique_names(["a"] * 20_000)
    assert names[:3] == ["a", "a_", "a__"]
    assert len(set(names)) == 20_000 and max(map(len, names)) < 32


def test_a_chain_of_dead_ops_goes_in_one_pass():
    """Each op of the chain is read by the next alone; none is asked more than twice."""
    model = parsed()
    graph = model.subgraphs[0]
    asked = []

    class Asked(type(graph.operators[0])):
        @property
        def outputs(self):
            asked.append(1)
            return self.made

        @outputs.setter
        def outputs(self, made):
            self.made = made

    length = 500
    for number in range(length):
        graph.tensors.append(copy.copy(graph.tensors[0]))
        operator = Asked()
        operator.inputs, operator.outputs = np.array([number + 2]), np.array([number + 3])
        graph.operators.append(operator)
    graph.outputs = np.array([2], np.int32)
    flatbuffer.drop_dead(model)
    assert len(graph.operators) == 2 and len(graph.tensors) == 3
    assert len(asked) <= 4 * length

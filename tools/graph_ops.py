"""Writes the list of TensorFlow ops that a stranger's graph may hold: ``python tools/graph_ops.py > LIST``.

LIST is ``tfcompress/lowering/trust/graph_ops.txt``. Every op of TensorFlow's registry is put into one group; what no rule
takes in is refused. A new version of TensorFlow therefore allows nothing new before somebody has run this and read the
difference.
"""

import re
import sys
from typing import Any, NamedTuple

NOT_PURE = re.compile(
    # They reach files, the network, the terminal, other devices or Python without being marked stateful ...
    r"ReadFile|MatchingFiles|.*Vocab.*|ImmutableConst|(De|En)codeProto.*|.*Summary.*|.*Debug.*|.*Print.*|PyFunc.*|.*Dataset.*"
    r"|SnapshotChunk.*|Xla.*|.*(TPU|Tpu).*|DTensor.*|Copy.*|.*CustomCall.*|Mlir.*|CustomAggregator|Abort|SymbolicGradient"
    # ... or are parts of input pipelines and servers, which a model to convert has not.
    r"|(Unb|B)atch(Function|Grad)?|(Unc|C)ompressElement|DecodeCompressed|ComputeBatchSize|GetElementAtIndex|GetOptions"
    r"|WindowOp|Optional.*|CompositeTensor.*|GetDeadline|TensorArray.*|Sdca.*|For"
    # Ops of TensorFlow's own tests.
    r"|Old|KernelLabel.*|ConstructionFails|Fact|CheckPinned|HostConst|.*>.*"
)
"""Of the ops that are not stateful, have a kernel for the processor and no references, those that stay out."""

MEMORY = {
    "variables": r"VarHandleOp|(Read|Assign|AssignAdd|AssignSub)VariableOp|VarIsInitializedOp|VariableShape|Variable(V2)?"
    r"|IsVariableInitialized|DisableCopyOnRead|DestroyResourceOp|(Destroy)?TemporaryVariable|Assign(Add|Sub)?"
    r"|Resource(Gather(Nd)?|Scatter\w+|StridedSliceAssign|CountUpTo)|Scatter(Nd)?(Add|Div|Max|Min|Mul|Sub|Update)"
    r"|StridedSliceAssign|CountUpTo|Ref(Identity|Switch|Merge|Enter|Exit|NextIteration|Select)|GuaranteeConst|Empty",
    "training steps": r"(Resource)?(Sparse)?Apply[A-Z]\w+",
    "functions": r"StatefulPartitionedCall|While|If|Case",
    "tables": r"(Anonymous)?(HashTable|Mutable(Dense)?HashTable(OfTensors)?)(V2)?|InitializeTable(V2)?"
    r"|LookupTable(Find|Import|Export|Insert|Remove|Size)(V2)?",
    "lists": r"TensorArray(V3|(Close|Concat|Gather|Grad|Read|Scatter|Size|Split|Write)V3|GradWithShape)"
    r"|Stack(V2|CloseV2|PopV2|PushV2)",
    "random numbers": r"Random(Uniform(Int)?|StandardNormal|Gamma|Poisson(V2)?|Shuffle|Crop)|(Parameterized)?TruncatedNormal"
    r"|Multinomial|RngSkip|RngReadAndSkip|NonDeterministicInts|StatelessRandomGetAlg|SampleDistortedBoundingBox(V2)?"
    r"|Stateful(Uniform(FullInt|Int)?|StandardNormal(V2)?|TruncatedNormal|RandomBinomial)",
    "checks": r"Assert|CheckNumerics(V2)?",
    "recurrent layers": r"CudnnRNN(Backprop)?(V2|V3)?|DeviceIndex",
}
"""Of the others, those that touch nothing but the memory of the graph itself."""

PLACED = {
    "checkpoints": r"RestoreV2|SaveV2|MergeV2Checkpoints",
    "vocabularies": r"InitializeTableFromTextFile(V2)?",
}
"""Ops that reach files, and are there in honest SavedModels: allowed where they read the model's own, as ``saved_models`` checks."""


class Op(NamedTuple):
    """What the registry says about an op."""

    name: str
    is_stateful: bool
    has_references: bool
    has_kernel: bool


def registered() -> list[Op]:
    """Returns every op of the installed TensorFlow, by name."""
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session as session
    from tensorflow.python.framework import kernels

    devices: dict[str, set[str]] = {}
    for kernel in kernels.get_all_registered_kernels().kernel:
        devices.setdefault(kernel.op, set()).add(kernel.device_type)

    def op(definition: Any) -> Op:
        references = any(argument.is_ref for argument in (*definition.input_arg, *definition.output_arg))
        return Op(
            definition.name,
            definition.is_stateful,
            references,
            bool(devices.get(definition.name, set()) & {"CPU", "DEFAULT"}),
        )

    definitions = op_def_pb2.OpList.FromString(session.TF_GetBuffer(session.TF_GetAllOpList())).op
    return sorted(map(op, definitions))


def group(op: Op) -> str | None:
    """Returns the group of an op in the list, None for one that stays out."""
    for name, pattern in {**MEMORY, **PLACED}.items():
        if re.fullmatch(pattern, op.name):
            return name
    is_pure = not op.is_stateful and not op.has_references and not op.name.startswith("_")
    has_kernel = op.has_kernel or op.name == "FakeParam"  # a stand-in for the branch that was not taken
    return "pure" if is_pure and has_kernel and not NOT_PURE.fullmatch(op.name) else None


def listed(ops: list[Op]) -> str:
    """Returns the text of the list."""
    groups: dict[str, list[str]] = {name: [] for name in (*PLACED, *MEMORY, "pure")}
    for op in ops:
        if (name := group(op)) is not None:
            groups[name].append(op.name)
    lines = ["# Ops of TensorFlow that a stranger's graph may hold; tools/graph_ops.py wrote it."]
    for name, names in groups.items():
        lines += [f"[{name}]", *names]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(listed(registered()))

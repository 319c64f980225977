"""SavedModels that run code or reach files are refused before TensorFlow loads them; honest ones stay open."""

import re
import sys
from pathlib import Path

import pytest
from hostile_saved_models import HONEST, HOSTILE, honest_module

from tfcompress.errors import ModelError
from tfcompress.lowering import SourceOptions, lower, open_source, trust
from tfcompress.lowering.trust.graphs import listed_ops

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import graph_ops

# Each of these reaches out of the process: files, network, terminal, devices, Python.
REACHING = [
    *(
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "ImmutableConst",
        "SnapshotDatasetV2",
        "AudioSummary",
        "PrintV2",
        "Print",
    ),
    *(
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "DebugIdentity",
        "DebugIdentityV2",
        "DebugNumericSummaryV2",
        "DumpTensor",
    ),
    *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "WriteScalarSummary", "ImportEvent", "DecodeProtoV2"),
    *("EncodeProto", "GenerateVocabRemapping", "LoadAndRemapMatrix", "Save", "SaveSlices", "Restore", "RestoreSlice"),
    *("TextLineDataset", "TFRecordDatasetV2", "SqlDataset", "LMDBDataset", "GeneratorDataset", "SaveDataset"),
    *(
        "TFRecordReaderV2",
        "WholeFileReaderV2",
        "CSVDatasetV2",
        "FixedLengthRecordDatasetV2",
        "ListSnapshotChunksDataset",
    ),
    *(
        "RpcCall",
        "RpcServer",
        "RemoteCall",
        "Send",
        "Recv",
        "CollectiveReduceV2",
        "NcclAllReduce",
        "DataServiceDatasetV4",
    ),
    *("XlaCallModule", "XlaCustomCallV2", "XlaHostCompute", "XlaLaunch", "XlaSendToHost", "TPUExecute", "Abort"),
    *(
        "CalibrationStatisticsSaver",
        "CustomAggregator",
        "DistributedSave",
        "WorkerHeartbeat",
        "FileSystemSetConfiguration",
    ),
    *("DTensorRestoreV2", "InfeedEnqueue", "OutfeedDequeue", "BoostedTreesDeserializeEnsemble", "SleepOp"),
]


@pytest.fixture(scope="module")
def registry():
    return {op.name: op for op in graph_ops.registered()}


def test_the_list_is_what_the_registry_and_the_rules_say(registry):
    expected = {name: group for name, op in registry.items() if (group := graph_ops.group(op)) is not None}
    assert listed_ops() == expected


def test_the_listed_ops_that_keep_state_are_those_of_the_named_groups(registry):
    def is_pure(op):
        return not op.is_stateful and not op.has_references

    assert {name for name, group in listed_ops().items() if group == "pure"} == {
        name for name in listed_ops() if graph_ops.group(registry[name]) == "pure" and is_pure(registry[name])
    }
    counts = {group: list(listed_ops().values()).count(group) for group in graph_ops.PLACED}
    assert counts == {"checkpoints": 3, "vocabularies": 2}
    needed = (
        "AssignVariableOp DisableCopyOnRead ReadVariableOp StatefulPartitionedCall VarHandleOp VarIsInitializedOp While"
    )
    assert set(needed.split()) <= listed_ops().keys()
    assert len(registry) - len(listed_ops()) > 1000


@pytest.mark.parametrize("name", REACHING)
def test_ops_that_reach_out_are_in_the_registry_and_not_in_the_list(name, registry):
    assert name in registry
    assert name not in listed_ops()


def test_no_listed_op_has_a_word_of_reaching_out_in_its_name():
    words = re.compile(
        "File|Dataset|Iterator|Summary|Print|PyFunc|Debug|Rpc|Remote|Send|Recv|Collective|Nccl|Xla|TPU|Reader|Queue|Host|Sql|Proto"
    )
    found = {name for name in listed_ops() if words.search(name)}
    own_vocabularies = {"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"}
    assert found == {"ShardedFilename", "ShardedFilespec"} | own_vocabularies  # the first two join strings


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("hostile")
            HOSTILE[name][0](made[name] / "saved", made[name] / "marker")
        return made[name]

    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_what_reaches_out_is_refused_with_the_reason(hostile, name):
    folder = hostile(name)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ModelError) as caught:
        open_source(folder / "saved")
    message = str(caught.value)
    assert HOSTILE[name][1] in message
    assert str(folder / "saved") in message and "\n" not in message
    assert "--allow_unsafe" in message or "is damaged" in message
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("name", ["prints to a file while it is loaded", "writes events while it is loaded"])
def test_the_attacks_are_real(hostile, name):
    folder = hostile(name)
    lower(open_source(folder / "saved", options=SourceOptions(allow_unsafe=True)))
    assert [path for path in folder.iterdir() if path.name == "marker" or path.name.endswith("touched")]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "recurrent" else ()) for name in HONEST]
)
def test_honest_models_stay_open(name, tmp_path):
    HONEST[name](tmp_path / "saved")
    assert trust.examine_saved_model(tmp_path / "saved") == []
    assert open_source(tmp_path / "saved").kind == "saved_model"


def test_a_vocabulary_must_be_the_models_own(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    HONEST["tables"](tmp_path / "saved")
    path = tmp_path / "saved" / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    objects = model.meta_graphs[0].object_graph_def
    for node in objects.nodes:
        if node.WhichOneof("kind") == "asset":  # any saved string instead of the path of an asset
            node.constant.operation = "Const"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="InitializeTableFromTextFileV2 on a file that is not the model's own"):
        open_source(tmp_path / "saved")


def test_what_was_checked_is_what_is_loaded(tmp_path, hostile):
    honest_module(tmp_path / "saved")
    source = open_source(tmp_path / "saved")
    for path in [*(tmp_path / "saved").rglob("*")]:
        if path.is_file():
            path.write_bytes(b"exchanged")
    assert lower(source).outputs == ("y",)
    copy = Path(source.value)
    assert copy.is_dir()
    del source
    assert not copy.exists()


def test_other_files_in_the_folder_are_not_loaded(tmp_path):
    honest_module(tmp_path / "saved")
    for name in ("saved_model.cpb", "saved_model.pbtxt", "fingerprint.pb", "variables/variables.other"):
        (tmp_path / "saved" / name).write_bytes(b"damage")
    copy = trust.copy_saved_model(tmp_path / "saved")
    names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    assert names == ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"]

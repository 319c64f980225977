"""Rules of mixed precision: the last match wins, and a rule that does nothing is an error."""

import json

import pytest

from tfcompress.errors import DataError
from tfcompress.quantization.precision import Rule, choose, read_rules

OPERATORS = [
    ("CONV_2D", ["net/stem/Relu;net/stem/convolution"]),
    ("DEPTHWISE_CONV_2D", ["net/block_1/depthwise"]),
    ("FULLY_CONNECTED", ["Identity", "net/logits/MatMul"]),
]


def precisions(*rules):
    return [rule and rule.precision for rule in choose(rules, OPERATORS)]


def test_the_last_match_wins():
    both = (Rule("*", precision="int16x8"), Rule("stem", precision="int8"))
    assert precisions(*both) == ["int8", "int16x8", "int16x8"]
    assert precisions(*reversed(both)) == ["int16x8"] * 3


def test_none_is_a_choice_and_no_rule_is_none():
    chosen = choose([Rule("logits", precision=None)], OPERATORS)
    assert chosen[:2] == [None, None]
    assert chosen[2] == Rule("logits", precision=None)


@pytest.mark.parametrize("pattern", ["stem", "net/stem/*", "net/stem/convolution", "st?m", "*Relu;*"])
def test_a_pattern_is_over_layer_and_tensor_names(pattern):
    assert precisions(Rule(pattern, precision="int4")) == ["int4", None, None]


def test_the_operator_narrows_the_pattern():
    assert precisions(Rule("*", op="*CONV_2D", precision="int8")) == ["int8", "int8", None]
    assert precisions(Rule("*", op="CONV_2D", precision="int8")) == ["int8", None, None]


def test_a_rule_that_matches_nothing_names_the_nearest():
    with pytest.raises(ValueError, match=r"pattern='logit'.*Names like it: logits"):
        choose([Rule("logit", precision="int8")], OPERATORS)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_files_hold_the_same_rules(tmp_path, suffix):
    path = tmp_path / f"rules{suffix}"
    items = [{"pattern": "*", "precision": "int8"}, {"pattern": "logits", "op": "FULLY_CONNECTED", "precision": None}]
    path.write_text(json.dumps(items))  # JSON is YAML
    assert read_rules(path) == (Rule("*", precision="int8"), Rule("logits", "FULLY_CONNECTED"))


def test_yaml_as_people_write_it(tmp_path):
    path = tmp_path / "rules.yml"
    path.write_text("- pattern: 'conv_*'\n  precision: int16x8\n- {pattern: logits, precision: null}\n")
    assert read_rules(str(path)) == (Rule("conv_*", precision="int16x8"), Rule("logits"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ('{"a": 1}', "must be a list"),
        ('[{"pattern": "a"}]', "precision"),
        ("[3]", "precision rule"),
    ],
)
def test_malformed_files_say_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises((DataError, TypeError, ValueError), match=message) as caught:
        read_rules(path)
    assert "\n" not in str(caught.value)


def test_wrong_rules_are_refused():
    with pytest.raises(ValueError, match="int8, int16x8, int4, None"):
        Rule("a", precision="int7")
    with pytest.raises(ValueError, match="must be texts"):
        Rule("", precision="int8")
    with pytest.raises(DataError, match="must be readable"):
        read_rules("/no/such/rules.json")
    with pytest.raises(DataError, match="must be YAML"):
        read_rules(_written("a: [", ".yaml"))


def _written(text, suffix):
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / f"rules{suffix}"
    path.write_text(text)
    return path

"""The JSON Schema of every kind of file: it takes what `postern check` takes, and refuses what tables refuse."""

import json
import re
import subprocess

import jsonschema
import pytest
import yaml
from lab import ROOT

EXAMPLES = sorted(p for p in (ROOT / "config" / "examples").iterdir() if p.suffix == ".yaml")


class Core(yaml.SafeLoader):
    """YAML 1.2's core schema, as editors read files: `on` is a word and a day a text."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("null", r"^(null|~|)$", list("n~") + [""]),
    ("bool", r"^(true|false)$", list("tf")),
    ("int", r"^[0-9]+$", list("0123456789")),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


def schema(build, kind):
    p = subprocess.run([build / "proxy" / "postern", "check", "--schema", kind], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout)


def validator(build, kind):
    s = schema(build, kind)
    jsonschema.Draft202012Validator.check_schema(s)
    return jsonschema.Draft202012Validator(s)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples(build, path):
    document = yaml.load(path.read_text(), Core)
    validator(build, document["kind"]).validate(document)


RULE = "kind: Policy\nlevel: 2\nrules:\n- {name: r, action: ALLOW, "
BAD = {
    "another kind": "kind: Mesh\nlevel: 2\nrules: []\n",
    "a key that is none": "kind: Policy\nlevel: 2\nrules: []\nrule: []\n",
    "no level": "kind: Policy\nrules: []\n",
    "a later level": "kind: Policy\nlevel: 3\nrules: []\n",
    "no name": "kind: Policy\nlevel: 2\nrules: [{action: ALLOW}]\n",
    "no such action": "kind: Policy\nlevel: 2\nrules: [{name: r, action: allow}]\n",
    "no such mode": RULE + "mode: try}\n",
    "an empty list": RULE + "from: []}\n",
    "an empty entry": RULE + "to: [{}]}\n",
    "an empty clause": RULE + "to: [{paths: []}]}\n",
    "a text for a list": RULE + "to: [{paths: /a}]}\n",
    "a port that is none": RULE + "to: [{ports: [65536]}]}\n",
    "no day": RULE + "expires: tomorrow}\n",
    "a value without a name": RULE + "to: [{headers: [{values: [a]}]}]}\n",
    "a key of level 2 in level 1": "kind: Policy\nlevel: 1\nrules: [{name: r, action: ALLOW, reason: x}]\n",
    "roles in level 1": "kind: Policy\nlevel: 1\nroles: [{name: q, to: [{ports: [1]}]}]\nrules: []\n",
    "a clause of level 2 in level 1": "kind: Policy\nlevel: 1\nrules: [{name: r, action: ALLOW, to: [{grpc: [a.B/C]}]}]\n",
}


@pytest.mark.parametrize("case", BAD)
def test_refused_by_both(build, tmp_path, case):
    (tmp_path / "policy.yaml").write_text(BAD[case])
    p = subprocess.run([build / "proxy" / "postern", "check", tmp_path / "policy.yaml"], capture_output=True, timeout=60)
    assert p.returncode == 2
    assert not validator(build, "Policy").is_valid(yaml.load(BAD[case], Core))


def test_one_role_or_several(build):
    v = validator(build, "Policy")
    for role in ("q", ["q", "p"]):
        rules = [{"name": "r", "action": "ALLOW", "role": role}]
        assert v.is_valid({"kind": "Policy", "level": 2, "rules": rules})


def test_no_such_kind(build):
    p = subprocess.run([build / "proxy" / "postern", "check", "--schema", "Polcy"], capture_output=True, text=True, timeout=60)
    assert p.returncode == 2 and "Policy" in p.stderr and p.stdout == ""


def test_policy_schema_is_the_same(build):
    def out(*argv):
        return subprocess.run([build / "proxy" / "postern", *argv], capture_output=True, text=True, timeout=60)

    assert out("policy", "schema").stdout == out("check", "--schema", "Policy").stdout != ""
    assert out("policy", "schema", "PolicyTest").stdout == out("check", "--schema", "PolicyTest").stdout != ""
    assert out("policy", "schema", "Polcy").returncode == 2

"""postern policy: exit codes and streams of the commands, as scripts and CI see them."""

import json
import os
import stat
import subprocess

from lab import ROOT
from test_commands import postern

EXAMPLES = ROOT / "config" / "examples"
POLICY = EXAMPLES / "policy.yaml"
LINE = {
    "event": "request",
    "direction": "inbound",
    "source": "10.0.0.1:5",
    "own_id": "spiffe://example.org/orders",
    "peer_id": "spiffe://example.org/frontend",
    "port": 8080,
    "method": "GET",
    "host": "orders",
    "path": "/orders/1",
    "verdict": "allow",
}


def write_log(path, *lines):
    path.write_text("".join(json.dumps({**LINE, **line}) + "\n" for line in lines))
    return path


def test_wrong_use(build, tmp_path):
    for argv in ([], ["lnt"], ["lint"], ["diff", POLICY], ["fmt", "-w", "--check", POLICY], ["explain", POLICY]):
        p = postern(build, "policy", *argv)
        assert p.returncode == 2 and "usage:" in p.stderr, argv
    for argv in (["lint", tmp_path / "no"], ["diff", POLICY, tmp_path / "no"], ["suggest", tmp_path / "no"]):
        p = postern(build, "policy", *argv)
        assert p.returncode == 2 and p.stderr and not p.stdout, argv
    assert postern(build, "policy", "--help").returncode == 0


def test_lint_fmt_and_diff(build, tmp_path):
    assert postern(build, "policy", "lint", POLICY).returncode == 0
    copy = tmp_path / "copy.yaml"
    copy.write_bytes(POLICY.read_bytes())
    os.chmod(copy, 0o640)
    assert postern(build, "policy", "fmt", "--check", copy).returncode == 1
    assert postern(build, "policy", "fmt", "-w", copy).returncode == 0
    assert postern(build, "policy", "fmt", "--check", copy).returncode == 0
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640
    p = postern(build, "policy", "diff", POLICY, copy)
    assert p.returncode == 0 and p.stdout == ""
    copy.write_text(copy.read_text().replace("ports: [7000]", "ports: [7001]"))
    p = postern(build, "policy", "diff", POLICY, copy)
    assert p.returncode == 1 and "gains " in p.stdout and "loses " in p.stdout
    copy.write_text("kind: Policy\nlevel: 1\nrules:\n  - {name: a, action: ALLOW}\n")
    p = postern(build, "policy", "lint", "--json", copy)
    assert p.returncode == 1 and json.loads(p.stdout)[0]["code"] == "anyone"


def test_expectations(build, tmp_path):
    p = postern(build, "policy", "test", EXAMPLES / "policy-test.yaml")
    assert p.returncode == 0 and p.stdout.endswith("4 tests, 0 failed\n")
    none = tmp_path / "none.yaml"
    none.write_text("kind: Policy\nlevel: 1\nrules: []\n")
    junit = tmp_path / "junit.xml"
    p = postern(build, "policy", "test", "--tap", "--junit", junit, "--policy", none, EXAMPLES / "policy-test.yaml")
    assert p.returncode == 1 and p.stdout.startswith("TAP version 13\n1..4\nnot ok 1 - ")
    assert 'failures="3"' in junit.read_text()


def test_logs(build, tmp_path):
    log = write_log(tmp_path / "log", {}, {"method": "HEAD"}, {"method": "POST", "verdict": "deny", "decision": "d-1"})
    p = postern(build, "policy", "suggest", log)
    assert p.returncode == 0 and "1 denied" in p.stderr
    made = tmp_path / "made.yaml"
    made.write_text(p.stdout)
    assert postern(build, "policy", "replay", log, made).returncode == 0
    assert postern(build, "policy", "fmt", "--check", made).returncode == 0
    write_log(log, {}, {"method": "DELETE"})
    p = postern(build, "policy", "replay", "--json", log, made)
    assert p.returncode == 1 and json.loads(p.stdout)["changes"][0]["method"] == "DELETE"
    write_log(log, {"method": "POST", "verdict": "deny", "decision": "d-1"})
    p = postern(build, "policy", "explain", "--log", log, "--decision", "d-1", made)
    assert p.returncode == 0 and "methods [GET, HEAD] does not hold POST" in p.stdout and "add POST" in p.stdout
    assert postern(build, "policy", "explain", "--log", log, "--decision", "d-2", made).returncode == 1


def test_convert(build, tmp_path):
    data = ROOT / "tests" / "data" / "convert"
    made = tmp_path / "made.yaml"
    p = postern(build, "policy", "convert", "--tcp-ports", "9000,9001", data / "workloads.yaml", data / "tcp.yaml")
    assert p.returncode == 1 and "warning: " in p.stderr and "implied-allow" in p.stderr
    made.write_text(p.stdout)
    assert postern(build, "policy", "fmt", "--check", made).returncode == 0
    p = postern(build, "policy", "test", "--policy", made, data / "tcp-test.yaml")
    assert p.returncode == 0 and ", 0 failed" in p.stdout
    p = postern(build, "policy", "convert", data / "tcp.yaml")
    assert p.returncode == 2 and f"{data / 'tcp.yaml'}:7:13: " in p.stderr and p.stdout == ""
    policy = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p", "namespace": "istio-system"}}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy]}, indent=4)
    argv = [build / "proxy" / "postern", "policy", "convert", "-"]
    p = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert p.returncode == 0 and p.stderr == "" and "rules: []" in p.stdout
    argv = [build / "proxy" / "postern", "policy", "convert", "--trust-domain", "example.org", "--tcp-ports", "none", "istio.yaml"]
    p = subprocess.run(argv, cwd=EXAMPLES / "convert", capture_output=True, text=True, timeout=60, check=False)
    assert p.returncode == 1 and p.stdout == (EXAMPLES / "convert" / "policy.yaml").read_text(), p.stderr
    for argv in (["--tcp-ports", "0", made], ["--trust-domain", "A/b", made], [], ["--frob", made]):
        assert postern(build, "policy", "convert", *argv).returncode == 2

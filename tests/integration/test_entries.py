"""Entries as people see them (postern entries, postern agent attest), and as a running agent gives them."""

import json
import os
import subprocess

import pytest
from lab import ROOT, wait_for
from node import TD, UIDS

HEAD = "kind: Entries\nlevel: 1\nentries:\n"


def postern(build, *argv):
    return subprocess.run([build / "proxy" / "postern", *argv], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def sleeper(lab):
    """A process that is there to be looked at, under a uid and a group of its own."""
    p = subprocess.Popen(
        ["setpriv", "--reuid=48911", "--regid=48912", "--groups=48913", "--inh-caps=-all", "sleep", "600"]
    )
    exe = f"/proc/{p.pid}/exe"
    wait_for("the program runs", lambda: os.readlink(exe).endswith("sleep"), 10)
    yield p.pid
    p.kill()
    p.wait()


def fetch(node, uid):
    return node.lab.run_in(
        [node.postern, "svid", "fetch", "--socket", f"unix:{node.socket}"], netns=node.netns, uid=uid, timeout=60
    )


def write(tmp_path, text, name="entries.yaml"):
    f = tmp_path / name
    f.write_text(text)
    return f


def test_used_wrongly(build, tmp_path):
    for argv in (
        ["entries"],
        ["entries", "shw"],
        ["entries", "show"],
        ["entries", "test", "1"],
        ["entries", "import"],
        ["entries", "show", "--verbose", "x"],
        ["agent", "attest"],
        ["agent", "attest", "x"],
        ["agent", "attest", "0"],
    ):
        p = postern(build, *argv)
        assert p.returncode == 2 and p.stderr, argv
    p = postern(build, "agent", "attest", "999999999")
    assert p.returncode == 1 and "no such process" in p.stderr
    bad = write(tmp_path, HEAD + "- {id: a, spiffe_id: 'spiffe://td/{k8s.nss}', selectors: ['unix:uid:0']}\n")
    for verb in ("show", "lint"):
        p = postern(build, "entries", verb, bad)
        assert p.returncode == 2 and ":4:" in p.stderr and "k8s.nss" in p.stderr


def test_attest_shows_each_selector_and_its_source(build, sleeper):
    p = postern(build, "agent", "attest", "--json", str(sleeper))
    assert p.returncode == 0, p.stderr
    doc = json.loads(p.stdout)
    found = {s["selector"]: s["source"] for s in doc["selectors"]}
    status = f"/proc/{sleeper}/status"
    assert found["unix:uid:48911"] == status
    assert found["unix:gid:48912"] == status
    assert found["unix:supplementary_gid:48913"] == status
    assert found["unix:path:" + os.path.realpath(f"/proc/{sleeper}/exe")] == f"/proc/{sleeper}/exe"
    digest = subprocess.run(["sha256sum", f"/proc/{sleeper}/exe"], capture_output=True, text=True, check=True)
    assert "unix:sha256:" + digest.stdout.split()[0] in found
    lines = postern(build, "agent", "attest", str(sleeper)).stdout
    assert "unix:uid:48911" in lines and status in lines


def test_entries_test_names_what_fails_first(build, tmp_path, sleeper):
    f = write(
        tmp_path,
        HEAD
        + "- {id: fits, spiffe_id: 'spiffe://td/u/{unix.uid}', selectors: ['unix:supplementary_gid:48913']}\n"
        + "- {id: no-group, spiffe_id: 'spiffe://td/b', selectors: ['unix:uid:48911', 'unix:gid:1']}\n"
        + "- {id: second, spiffe_id: 'spiffe://td/u/48911', selectors: ['unix:uid:48911']}\n",
    )
    p = postern(build, "entries", "test", "--json", str(sleeper), f)
    assert p.returncode == 0, p.stderr
    doc = json.loads(p.stdout)
    assert [(e["id"], e["spiffe_id"]) for e in doc["gets"]] == [("fits", "spiffe://td/u/48911")]
    why = {e["id"]: e["reason"] for e in doc["others"]}
    assert "unix:gid:1" in why["no-group"]
    assert "same identity" in why["second"]
    nothing = write(tmp_path, HEAD + "- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1']}\n", "n.yaml")
    assert postern(build, "entries", "test", str(sleeper), nothing).returncode == 1


def test_lint_and_show_of_the_examples(build):
    for name in ("entries.yaml", "entries-kubernetes.yaml"):
        f = ROOT / "config" / "examples" / name
        p = postern(build, "entries", "lint", f)
        assert p.returncode == 0, p.stdout
        shown = json.loads(postern(build, "entries", "show", "--json", f).stdout)
        assert [e["order"] for e in shown] == list(range(1, len(shown) + 1))


def test_import(build, tmp_path):
    entry = {
        "id": "a",
        "spiffe_id": {"trust_domain": "td", "path": "/a"},
        "parent_id": {"trust_domain": "td", "path": "/node"},
        "selectors": [{"type": "unix", "value": "uid:1"}],
        "x509_svid_ttl": 300,
    }
    docker = dict(entry, id="b", selectors=[{"type": "docker", "value": "label:a:b"}])
    f = write(tmp_path, json.dumps({"entries": [entry, docker], "next_page_token": ""}), "spire.json")
    p = postern(build, "entries", "import", f)
    assert p.returncode == 1 and p.stdout == "" and "'b'" in p.stderr and "docker:label" in p.stderr
    p = postern(build, "entries", "import", "--partial", f)
    assert p.returncode == 0
    ours = write(tmp_path, p.stdout, "ours.yaml")
    assert [e["id"] for e in json.loads(postern(build, "entries", "show", "--json", ours).stdout)] == ["a"]


def test_agent_gives_by_group_and_digest(node, build):
    """The whole way: an entry that asks for a digest makes the attestor read executables."""
    exe = os.path.realpath(node.postern)
    digest = subprocess.run(["sha256sum", exe], capture_output=True, text=True, check=True).stdout.split()[0]
    (node.conf / "entries.yaml").write_text(
        HEAD
        + f"- {{id: wrong, spiffe_id: 'spiffe://{TD}/wrong', selectors: ['unix:sha256:{'0' * 64}']}}\n"
        + f"- {{id: right, spiffe_id: 'spiffe://{TD}/u/{{unix.uid}}', selectors: ['unix:uid:{UIDS['client']}', "
        + f"'unix:sha256:{digest}']}}\n"
    )
    node.start_agent()
    p = fetch(node, UIDS["client"])
    assert p.returncode == 0 and f"spiffe://{TD}/u/{UIDS['client']}" in p.stdout, p.stderr
    p = fetch(node, UIDS["server"])
    assert p.returncode == 1 and "spiffe://" not in p.stdout

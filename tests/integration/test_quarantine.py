"""What is quarantined on a node, end to end at the agent. docs/quarantine.md."""

import json
import os
import signal
import stat

import pytest
from lab import run, wait_for
from test_agent_processes import TD, agent  # noqa: F401

ID = f"spiffe://{TD}/root"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def quarantine(agent, *argv, check=True):
    return run(
        agent.postern, "quarantine", argv[0], "--config", agent.dir / "agent.yaml", *argv[1:], check=check
    )


def listed(agent):
    doc = json.loads(quarantine(agent, "list", "--json").stdout)
    assert doc["scope"] == "this node only"
    return doc


def test_identity_stops_at_once_and_comes_back(agent):
    agent.write_entries({"root": "unix:uid:0", "other": "unix:uid:0"})
    agent.start()
    assert agent.identity() == ID
    p = quarantine(agent, "add", "--reason", "stolen laptop", ID)
    assert "this node only" in p.stdout and "stolen laptop" in p.stdout
    # the other identity of the same caller stays, and is its first one now
    assert agent.identity() == f"spiffe://{TD}/other"
    quarantine(agent, "add", f"spiffe://{TD}/other")
    refused = agent.fetch()
    assert refused.returncode != 0 and "PermissionDenied" in refused.stderr + refused.stdout
    quarantine(agent, "remove", ID)
    assert agent.identity() == ID


def test_open_stream_is_ended(agent):
    agent.start()
    watch = agent.lab.start("watch", [agent.postern, "svid", "watch", "--socket", agent.socket])
    wait_for("the first SVID", lambda: ID in watch.out())
    quarantine(agent, "add", ID)
    wait_for("PermissionDenied", lambda: "PermissionDenied" in watch.out() + watch.err())


def test_survives_restarts(agent):
    agent.start()
    quarantine(agent, "add", "--for", "2h", "--reason", "why not", ID)
    quarantine(agent, "add", "serial:0A:BC")
    before = listed(agent)
    f = agent.state / "quarantine"
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o600
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.p.wait()
    agent.start()
    assert listed(agent) == before
    assert agent.identity() is None
    assert agent.events("quarantine_restored")
    # a service that is started again knows it too, and the keeper goes on refusing
    os.kill(agent.children()["postern-agent-service"], signal.SIGKILL)
    agent.wait_event("service_restarted")
    wait_for("an answer", lambda: "PermissionDenied" in (lambda p: p.stdout + p.stderr)(agent.fetch()))
    quarantine(agent, "remove", "serial:abc")
    after = listed(agent)
    assert [x["subject"] for x in after["items"]] == [ID] and after["version"] > before["version"]


def test_time_limit(agent):
    agent.start()
    quarantine(agent, "add", "--for", "1s", ID)
    wait_for("the end of it", lambda: agent.identity() == ID)
    assert listed(agent)["items"] == []
    assert [e["change"] for e in agent.events("quarantine")] == ["added", "over"]


def test_damaged_file_is_no_empty_set(agent):
    agent.start()
    quarantine(agent, "add", ID)
    agent.process.stop()
    f = agent.state / "quarantine"
    f.write_bytes(f.read_bytes()[:-3])
    agent.start(wait=False)
    assert agent.wait_end() != 0
    (failed,) = agent.events("agent_failed")
    assert str(f) in failed["where"] and "damaged" in failed["error"]


@pytest.mark.parametrize(
    "argv, text",
    [
        (["add"], "usage"),
        (["add", "nginx:1.22"], "nothing that can be quarantined"),
        (["add", "--for", "0s", ID], "is no time"),
        (["add", "--for", "2", ID], "is no time"),
        (["add", "serial:xyz"], "hexadecimal"),
        (["add", "--reason", "x" * 257, ID], "longer than"),
        (["remove", ID], "not quarantined"),
        (["list", ID], "usage"),
        (["forget", ID], "usage"),
    ],
)
def test_wrong_orders(agent, argv, text):
    agent.start()
    p = quarantine(agent, *argv, check=False)
    assert p.returncode == 2 and text in p.stderr
    assert listed(agent)["items"] == []


def test_full_disk_stops_issuing_and_says_that_it_is_not_saved(agent):
    """The state directory takes no new file: the order is in force, and whoever gave it learns what it is worth."""
    agent.start()
    # os_write_file_atomic has to make a file there
    run("chattr", "+i", agent.state, check=False)
    try:
        (agent.state / "probe").write_text("")
        pytest.skip("no immutable flag on this file system")
    except PermissionError:
        pass
    try:
        p = quarantine(agent, "add", ID, check=False)
        assert p.returncode == 1 and "after a restart" in p.stderr
        assert agent.identity() is None
        assert agent.events("quarantine_not_saved")
    finally:
        run("chattr", "-i", agent.state)
    quarantine(agent, "add", ID)
    assert [x["subject"] for x in listed(agent)["items"]] == [ID]


def test_digest_alone(agent):
    """No container here has this image: nobody else is hit."""
    agent.start()
    quarantine(agent, "add", f"registry.example/app@{DIGEST}")
    assert [x["subject"] for x in listed(agent)["items"]] == [DIGEST]
    assert agent.identity() == ID

"""The record of what an agent issued, end to end. docs/journal.md."""

import base64
import concurrent.futures
import json
import os
import signal
import stat
import urllib.request

import pytest
from lab import free_port, run, wait_for
from test_agent_processes import TD, agent  # noqa: F401

ID = f"spiffe://{TD}/root"


def journal(agent, *argv, check=True):
    return run(agent.postern, "journal", argv[0], "--config", agent.dir / "agent.yaml", *argv[1:], check=check)


def verdict(agent, *argv):
    p = journal(agent, "verify", "--json", *argv, check=False)
    doc = json.loads(p.stdout)
    assert (p.returncode == 0) == doc["good"]
    return doc


def lines(agent, *argv):
    return [json.loads(x) for x in journal(agent, "show", "--json", *argv).stdout.splitlines()]


def serial_of(fetched):
    return next(x.split()[1] for x in fetched.stdout.splitlines() if x.startswith("serial"))


def test_every_issuance_is_a_line(agent):
    agent.start()
    serials = [serial_of(agent.fetch()) for _ in range(3)]
    agent.fetch(uid=12345)  # has no identity
    found = lines(agent, "--spiffe-id", ID)
    assert [x["serial"].lstrip("0") for x in found] == [s.lstrip("0") for s in serials]
    first = found[0]
    assert list(first)[:4] == ["seq", "time", "prev", "event"]
    assert first["kind"] == "x509" and first["entry"] == "root" and first["uid"] == 0
    assert first["path"] == str(agent.postern) and len(first["key"]) == 64
    assert [x["serial"] for x in lines(agent, "--serial", serials[1].upper())] == [found[1]["serial"]]
    agent.process.stop()
    v = verdict(agent)
    assert v["good"] and v["issued"] == 3 and v["signed_seq"] == v["last_seq"]
    assert lines(agent)[0]["event"] == "started" and lines(agent)[-2]["event"] == "stopped"
    for name in ("00000001.jsonl", "head"):
        assert stat.S_IMODE(os.stat(agent.state / "journal" / name).st_mode) == 0o600


def test_every_token_is_a_line(agent):
    agent.start()
    argv = ["svid", "fetch", "--jwt", "--audience", "a", "--raw", "--socket", f"unix:{agent.socket}"]
    tokens = [run(agent.postern, *argv).stdout.strip() for _ in range(2)]
    parts = [json.loads(base64.urlsafe_b64decode(t.split(".")[1] + "==")) for t in tokens]
    found = [x for x in lines(agent, "--spiffe-id", ID) if x["kind"] == "jwt"]
    assert [x["jti"] for x in found] == [base64.urlsafe_b64decode(p["jti"] + "==").hex() for p in parts]
    kid = json.loads(base64.urlsafe_b64decode(tokens[0].split(".")[0] + "=="))["kid"]
    assert found[0]["entry"] == "root" and found[0]["key"] == kid and found[0]["uid"] == 0
    agent.process.stop()
    assert verdict(agent)["good"]


def test_verify_while_it_runs_and_by_a_root_from_elsewhere(agent):
    agent.start()
    agent.fetch()
    out = agent.dir / "got"
    out.mkdir()
    run(agent.postern, "svid", "fetch", "--socket", agent.socket, "--write", out)
    wait_for("a head", lambda: verdict(agent)["heads"] >= 1)
    v = verdict(agent, "--root", out / "bundle.pem")
    assert v["good"] and not v["own_roots"]
    noted = f"{v['signed_seq']}:{v['signed_hash']}"
    agent.fetch()
    assert verdict(agent, "--head", noted)["good"]
    # another agent's root
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=x",
        "-keyout", out / "k.pem", "-out", out / "other.pem")  # fmt: skip
    v = verdict(agent, "--root", out / "other.pem")
    assert not v["good"] and "no root" in v["error"]


def test_by_the_control_socket(agent):
    agent.start()
    agent.fetch()
    p = run(agent.postern, "journal", "show", "--control", agent.state / "control.sock", "--since", "1h")
    assert "issued" in p.stdout and ID in p.stdout


def test_follow(agent):
    agent.start()
    follow = agent.lab.start(
        "follow", [agent.postern, "journal", "show", "--follow", "--dir", agent.state / "journal"]
    )
    wait_for("the beginning", lambda: "started" in follow.out())
    serial = serial_of(agent.fetch())
    wait_for("the new line", lambda: serial in follow.out())


def test_kill_storm(agent):
    """kill -9 while many ask, again and again: the record holds together, and has what callers got."""
    agent.start()
    got = []
    for round_ in range(6):
        if round_ > 0:
            agent.start()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            asks = [pool.submit(agent.fetch) for _ in range(24)]
            wait_for("some answers", lambda: sum(a.done() for a in asks) >= 4 + round_)
            os.kill(agent.process.pid, signal.SIGKILL)
            got += [serial_of(a.result()) for a in asks if a.result().returncode == 0]
        agent.process.p.wait()
        wait_for("the others", lambda: not agent.children())
    agent.start()
    agent.process.stop()
    v = verdict(agent)
    assert v["good"], v
    seen = {x["serial"] for x in lines(agent) if x["event"] == "issued"}
    assert {s.rjust(32, "0") for s in got} <= seen
    assert len([x for x in lines(agent) if x["event"] == "resumed"]) == 6


def test_somebody_was_at_it(agent):
    agent.start()
    agent.fetch()
    agent.process.stop()
    f = agent.state / "journal" / "00000001.jsonl"
    good = f.read_bytes()
    f.write_bytes(good.replace(ID.encode(), ID.replace("root", "r00t").encode()))
    v = verdict(agent)
    assert not v["good"] and v["where"].startswith(f"{f}:") and "another" in v["error"]
    # and cut off, with the agent started over it
    f.write_bytes(b"".join(good.splitlines(keepends=True)[:3]))
    assert "cut off" in verdict(agent)["error"]
    agent.start()
    assert agent.events("journal_cut")
    assert agent.identity() == ID
    agent.process.stop()
    assert "were gone" in verdict(agent)["error"]


def test_rotation_keeps_what_is_asked_for(agent):
    agent.write_config("journal: {max_size: 65536, keep: 2}\n")
    agent.write_entries({f"root{i}": "unix:uid:0" for i in range(40)})
    agent.start()
    d = agent.state / "journal"
    for _ in range(200):
        agent.fetch()
        if (d / "00000004.jsonl").exists():
            break
    agent.process.stop()
    assert sorted(p.name for p in d.iterdir()) == ["00000003.jsonl", "00000004.jsonl", "head"]
    v = verdict(agent)
    assert v["good"] and v["first_seq"] > 1 and v["files"] == 2, v


def test_next_file_that_is_there_and_empty(agent):
    """A keeper that could not finish its file (a full disk) leaves the next one empty: the journal stayed in the old
    one from then on, whatever its size."""
    agent.write_config("journal: {max_size: 65536, keep: 2}\n")
    agent.write_entries({f"root{i}": "unix:uid:0" for i in range(40)})
    agent.start()
    made = agent.state / "journal" / "00000002.jsonl"
    made.touch(mode=0o600)
    for _ in range(100):
        agent.fetch()
        if made.stat().st_size > 0 or agent.events("journal_next_failed"):
            break
    assert made.stat().st_size > 0 and not agent.events("journal_next_failed")
    agent.process.stop()
    v = verdict(agent)
    assert v["good"] and v["files"] == 2, v


def test_no_root_in_the_file(agent):
    """An empty file of roots is an error, and no wish to be judged by the roots that the journal names."""
    agent.start()
    agent.fetch()
    agent.process.stop()
    empty = agent.dir / "empty.pem"
    empty.write_text("")
    assert verdict(agent)["good"]
    p = journal(agent, "verify", "--root", empty, check=False)
    assert p.returncode == 1 and "no certificate is in this file" in p.stderr


def test_authorities_that_change(agent):
    """Heads go on under the next root, and each change is a line."""
    agent.start()
    agent.fetch()
    out = agent.dir / "roots"
    roots = b""
    for order in (["prepare"], ["activate"], ["taint"], ["retire", "--force"]):
        agent.fetch()
        run(agent.postern, "svid", "fetch", "--socket", agent.socket, "--write", out)
        roots += (out / "bundle.pem").read_bytes()
        run(agent.postern, "ca", *order, "--x509", "--config", agent.dir / "agent.yaml")
    serial = serial_of(agent.fetch())
    agent.process.stop()
    v = verdict(agent)
    assert v["good"] and v["signed_seq"] == v["last_seq"], v
    all_lines = lines(agent)
    changes = [x["change"] for x in all_lines if x["event"] == "change" and x["kind"] == "x509"]
    assert changes == ["prepared", "activated", "tainted", "retired"]
    assert serial.rjust(32, "0") in {x.get("serial") for x in all_lines}
    assert len([x for x in all_lines if x["event"] == "authority" and x["kind"] == "node"]) == 2
    every = agent.dir / "every.pem"
    every.write_bytes(roots)
    assert verdict(agent, "--root", every)["good"]


# --- a disk that is full --------------------------------------------------------------------------------
def test_full_disk_does_not_stop_issuing(agent):
    """The state directory is a file system of a few pages, in a mount namespace of this test's own agent."""
    port = free_port()
    agent.state.mkdir(mode=0o700)
    agent.write_config(
        f"admin:\n  socket: {agent.dir}/admin.sock\nmetrics:\n  address: 127.0.0.1:{port}\n"
        "ca: {key_at_rest: plain, node_ttl: 14s}\nsvid: {ttl: 10s}\n"
    )
    small = (
        f"mount --make-rprivate / && mount -t tmpfs -o size=256k,mode=700 none {agent.state} && "
        f"exec {agent.postern} agent {agent.dir}/agent.yaml"
    )
    agent.process = agent.lab.start(
        "small", ["unshare", "--mount", "/bin/sh", "-c", small], env={**os.environ, "POSTERN_SANDBOX_KILL": "1"}
    )
    agent.wait_event("ready")
    state = f"/proc/{agent.process.pid}/root{agent.state}"

    def status():
        p = run(agent.postern, "status", "--json", "--socket", agent.dir / "admin.sock")
        return json.loads(p.stdout)["journal"]

    assert agent.identity() == ID and status()["state"] == "ok"
    filler = os.open(f"{state}/filler", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError):
        while True:
            os.write(filler, b"x" * 4096)
    os.close(filler)
    for _ in range(200):
        assert agent.identity() == ID  # it goes on issuing
        if agent.events("journal_failing") and status()["lost"] > 0:
            break
    assert len(agent.events("journal_failing")) == 1, "loud, but not one line a certificate"
    wait_for("the status", lambda: status()["state"] == "degraded" and status()["lost"] > 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert "postern_agent_journal_failing 1" in text and "postern_agent_journal_lines_lost" in text
    # another intermediate signs meanwhile: its line is written when there is room, or no head of its would be good
    renewed = len(agent.events("node_renewed"))
    wait_for("another intermediate", lambda: len(agent.events("node_renewed")) > renewed)
    assert agent.identity() == ID
    os.unlink(f"{state}/filler")
    wait_for("room again", lambda: status()["state"] == "ok")
    serial = serial_of(agent.fetch())
    # the mount goes with its last process: read it while that is there
    kept = run(agent.postern, "journal", "show", "--json", "--dir", f"{state}/journal")
    shown = [json.loads(x) for x in kept.stdout.splitlines()]
    assert sum(x["lost"] for x in shown if x["event"] == "gap") > 0
    assert serial.rjust(32, "0") in {x.get("serial") for x in shown}
    wait_for("a head", lambda: run(
        agent.postern, "journal", "verify", "--dir", f"{state}/journal", check=False
    ).returncode == 0)  # fmt: skip

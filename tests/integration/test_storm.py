"""A rotation storm in small, by the handle that makes a large one (tests/handles/storm, `./dev soak --agent`)."""

import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys

import pytest
from lab import wait_for
from test_agent_processes import Agent

HANDLE = pathlib.Path(__file__).resolve().parents[1] / "handles" / "storm"


def storm(build, *argv):
    p = subprocess.run(
        [sys.executable, HANDLE, "--build", build, *map(str, argv)], capture_output=True, text=True, timeout=200, check=False
    )
    assert p.stdout, p.stderr
    return p.returncode, json.loads(p.stdout), p.stderr


def test_every_workload_is_renewed_in_time(build):
    """A hundred uids, a stream each, TTL 10 s: each renewed again and again, none late, none lost."""
    # Under a sanitizer freed memory is kept for a while: growth is the long storm's to judge.
    status, result, err = storm(build, "--identities", 100, "--ttl", "10s", "--seconds", 25, "--growth", 100)
    assert status == 0 and result["ok"], (result, err[-2000:])
    assert result["streams"] == 100 and result["lost"] == result["late"] == result["repeated"] == result["expired"] == 0
    assert result["fewest"] >= 4, result  # the first, and one at each half of a life
    assert result["issued"] >= result["messages"]


def test_a_thousand_come_at_once(lab, build):
    """Nobody who does not wait is turned away. It broke with a queue of 512: the last of a thousand got EAGAIN."""
    wanted = 1000
    somaxconn = int(pathlib.Path("/proc/sys/net/core/somaxconn").read_text())
    if somaxconn < wanted:
        pytest.skip(f"this kernel queues {somaxconn} at most")
    agent = Agent(lab, build)
    agent.start()
    attestor = agent.children()["postern-attestor"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * wanted)), hard))
    os.kill(attestor, signal.SIGSTOP)  # as if it had not come to its turn
    connections = []
    try:
        for _ in range(wanted):
            connections.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            connections[-1].connect(str(agent.socket))
    finally:
        os.kill(attestor, signal.SIGCONT)
        for c in connections:
            c.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for("its identity", lambda: agent.identity() is not None)


def test_an_agent_that_dies_is_noticed(build, tmp_path):
    """The handle must be able to fail: its agent is killed under it."""
    log = tmp_path / "log"
    argv = [sys.executable, HANDLE, "--build", build, "--identities", "3", "--ttl", "10s", "--seconds", "60", "--log", log]
    p = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for("streams", lambda: log.exists() and log.read_text().count('"event":"issued"') >= 3, 60)
    (agent,) = (c for c in children(p.pid) if pathlib.Path(os.readlink(f"/proc/{c}/exe")).name == "postern")
    os.kill(agent, signal.SIGKILL)
    out, err = p.communicate(timeout=100)
    assert p.returncode != 0, out
    assert "is lost" in err, err


def children(pid):
    return [int(c) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]

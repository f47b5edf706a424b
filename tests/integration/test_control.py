"""Root's way to order things of an agent. docs/privilege-separation.md, cases C."""

import array
import os
import pathlib
import socket
import stat

import control
import pytest
from lab import run, wait_for
from test_agent_processes import TD, agent  # noqa: F401

VERB_AGENT = 1
N_CLIENTS = 8


def path_of(agent):
    return agent.state / "control.sock"


def test_says_who_it_is(agent):
    agent.start()
    p = path_of(agent)
    assert stat.S_IMODE(os.stat(p).st_mode) == 0o600
    doc = control.ask(p, VERB_AGENT)
    assert doc["pid"] == agent.process.pid and doc["trust_domain"] == TD
    assert {x["pid"] for x in doc["processes"]} == set(agent.children().values())
    agent.process.stop()
    assert not p.exists()


@pytest.mark.parametrize(
    "bad",
    [
        b"x",
        control.request(VERB_AGENT)[:-1],
        control.request(VERB_AGENT) + b"x",
        control.request(0),
        control.request(4711),
        control.request(VERB_AGENT, magic=1),
        control.request(VERB_AGENT, size=12),
        control.request(VERB_AGENT, args=["it takes none"]),
        control.request(VERB_AGENT, number=1),
        control.request(VERB_AGENT, flags=1 << 31),
        b"\xff" * control.REQUEST_SIZE,
    ],
)
def test_bad_requests(agent, bad):
    agent.start()
    with control.connect(path_of(agent)) as s:
        s.send(bad)
        with pytest.raises(control.Refused, match="no request of this version"):
            control.receive(s)
        assert s.recv(1) == b""  # and it is closed
    assert control.ask(path_of(agent), VERB_AGENT)["trust_domain"] == TD


def test_descriptor_in_a_request(agent):
    agent.start()
    before = len(os.listdir(f"/proc/{agent.process.pid}/fd"))
    with control.connect(path_of(agent)) as s:
        r, w = os.pipe()
        fds = array.array("i", [r])
        s.sendmsg([control.request(VERB_AGENT)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        with pytest.raises(control.Refused):
            control.receive(s)
        os.close(r)
        os.close(w)
    wait_for("descriptors closed", lambda: len(os.listdir(f"/proc/{agent.process.pid}/fd")) == before)


def test_others_may_not(agent):
    agent.start()
    p = path_of(agent)
    probe = (
        "import socket,sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\ns.settimeout(20)\n"
        "try:\n    s.connect(sys.argv[1])\nexcept PermissionError:\n    print('mode'); sys.exit()\n"
        "print('ended' if s.recv(1) == b'' else 'answered')\n"
    )

    def as_nobody():
        argv = agent.lab.argv_in(["/usr/bin/python3", "-c", probe, str(p)], uid=65534)
        return run(*argv).stdout.strip()

    assert as_nobody() == "mode"
    # Somebody opened everything on the way to it: the peer's uid still counts.
    for d in (agent.dir, agent.state):
        os.chmod(d, 0o755)
    os.chmod(p, 0o666)
    assert as_nobody() == "ended"
    assert agent.wait_event("control_refused")
    assert control.ask(p, VERB_AGENT)["trust_domain"] == TD


def test_clients_that_do_nothing(agent):
    """Eight silent ones hold every place; the agent goes on, and a ninth is served when they are over."""
    agent.start()
    silent = [control.connect(path_of(agent)) for _ in range(N_CLIENTS)]
    assert agent.identity() == f"spiffe://{TD}/root"
    with control.connect(path_of(agent)) as late:
        late.send(control.request(VERB_AGENT))
        assert f'"trust_domain":"{TD}"' in control.receive(late)
    for s in silent:
        assert s.recv(1) == b""
        s.close()


def test_client_that_leaves(agent):
    agent.start()
    for _ in range(3 * N_CLIENTS):
        with control.connect(path_of(agent)) as s:
            s.send(control.request(VERB_AGENT))
    assert control.ask(path_of(agent), VERB_AGENT)["trust_domain"] == TD


def test_directory_of_others(agent):
    """A sticky directory is good enough for the Workload API's socket, and not for orders."""
    d = agent.dir / "open"
    d.mkdir()
    os.chmod(d, 0o1777)
    agent.write_config(f"control:\n  socket: {d}/control.sock\n")
    agent.start(wait=False)
    assert agent.wait_end() == 1
    (failed,) = agent.events("agent_failed")
    assert "control socket" in failed["error"] and str(d) in failed["where"]


def test_moved(agent):
    agent.write_config(f"control:\n  socket: {agent.dir}/orders/c.sock\n")
    agent.start()
    assert control.ask(agent.dir / "orders" / "c.sock", VERB_AGENT)["pid"] == agent.process.pid
    assert not path_of(agent).exists()


def test_long_state_dir(agent):
    """A path that no Unix address holds."""
    agent.state = pathlib.Path(agent.dir) / ("x" * 120) / "state"
    agent.state.parent.mkdir()
    agent.write_config()
    agent.start()
    here = os.open(agent.state, os.O_PATH)
    try:
        assert control.ask(f"/proc/self/fd/{here}/control.sock", VERB_AGENT)["state_dir"] == str(agent.state)
    finally:
        os.close(here)

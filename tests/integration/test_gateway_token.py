"""A gateway's keys in a PKCS#11 token, used by a process of its own."""

import contextlib
import os
import signal
import ssl

import pytest
from lab import run, wait_for
from owned_gateway import UID, Gateway, Token, client_context, connected, exchange, server_text, shown, world
from pki import write

def helpers(gateway):
    """The processes of postern-token below a gateway: (watcher, worker) by pid, as far as they are there."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError):
            stat = open(f"/proc/{pid}/stat").read()
            if stat[stat.index("(") + 1 : stat.rindex(")")] == "postern-token":
                found.append((int(pid), int(stat[stat.rindex(")") + 1 :].split()[1])))
    watchers = [p for p, parent in found if parent == gateway.process.pid]
    return watchers, [p for p, parent in found if parent in watchers]


@pytest.mark.parametrize("kind,version", [("ec", "TLSv1.3"), ("p384", "TLSv1.3"), ("rsa", "TLSv1.3"), ("rsa", "TLSv1.2")])
def test_key_in_a_token(world, kind, version):
    token = Token(world.node.lab, UID)
    leaf = world.ca.leaf(dns=["web.example"], public_key=token.make_key(kind, "hsm", "01"))
    write(world.dir / "hsm.pem", leaf.cert_pem, 0o644)
    port, conf = server_text(world, token.text("hsm.pem", "hsm"), names=["hsm"], more='    tls: {min: "1.2"}\n')
    gateway = Gateway(world.node, conf)
    ctx = client_context(world, world.ca.leaf(dns=["caller.example"]), maximum_version=getattr(ssl.TLSVersion, version.replace(".", "_")))
    with connected(world, port, ctx) as s:
        assert s.version() == version
        s.sendall(b"marker")
        assert s.recv(10) == b"marker"
    with open(f"/proc/{gateway.process.pid}/maps") as maps:
        assert "softhsm" not in maps.read()  # the module is somewhere else
    assert gateway.credential("hsm")["kind"] == "token"


def test_token_is_killed_and_changed(world):
    """The process with the module dies: handshakes fail at most for a moment. Then another key of the same label."""
    token = Token(world.node.lab, UID)
    leaf = world.ca.leaf(dns=["web.example"], public_key=token.make_key("ec", "hsm", "01"))
    write(world.dir / "hsm.pem", leaf.cert_pem, 0o644)
    port, conf = server_text(world, token.text("hsm.pem", "hsm"), names=["hsm"])
    gateway, ctx = Gateway(world.node, conf), client_context(world, world.ca.leaf(dns=["caller.example"]))
    assert exchange(world, port, ctx) == "marker"
    (_,), (worker,) = helpers(gateway)
    os.kill(worker, signal.SIGKILL)
    wait_for("another one", lambda: helpers(gateway)[1] not in ([], [worker]))
    wait_for("handshakes again", lambda: exchange(world, port, ctx) == "marker")
    # One that hangs: refused in time, and served again when it goes on.
    (worker,) = helpers(gateway)[1]
    os.kill(worker, signal.SIGSTOP)
    assert exchange(world, port, ctx) != "marker"
    assert exchange(world, port, ctx) != "marker"
    os.kill(worker, signal.SIGCONT)
    wait_for("handshakes once more", lambda: exchange(world, port, ctx) == "marker")
    # A certificate of another key of the token.
    other = world.ca.leaf(dns=["web.example"], public_key=token.make_key("ec", "hsm", "02"))
    os.kill(helpers(gateway)[1][0], signal.SIGKILL)  # a session does not see what others make
    write(world.dir / "hsm.pem", other.cert_pem, 0o644)
    wait_for("the other key", lambda: shown(world, port, ctx) == other.serial, timeout=30)
    # And one of a key that is not in it.
    write(world.dir / "hsm.pem", world.ca.leaf(dns=["web.example"]).cert_pem, 0o644)
    assert "none of them the certificate's" in gateway.wait_event("credential_refused", timeout=30)["error"]
    assert shown(world, port, ctx) == other.serial
    watchers, workers = helpers(gateway)
    assert gateway.process.stop() == 0
    wait_for("their end", lambda: not any(os.path.exists(f"/proc/{p}/fd") and os.readlink(f"/proc/{p}/exe") for p in watchers + workers))


def test_wrong_pin(world):
    """It is told, tried once, and a start fails with it."""
    token = Token(world.node.lab, UID)
    leaf = world.ca.leaf(dns=["web.example"], public_key=token.make_key("ec", "hsm", "01"))
    write(world.dir / "hsm.pem", leaf.cert_pem, 0o644)
    token.write_pin("0000")
    _, conf = server_text(world, token.text("hsm.pem", "hsm"), names=["hsm"])
    gateway = Gateway(world.node, conf, wait=False)
    wait_for("its end", lambda: not gateway.process.alive(), timeout=40)
    assert gateway.process.p.returncode != 0
    assert "PIN is wrong" in "".join(e["error"] for e in gateway.events("token_failed"))
    assert len(gateway.events("token_failed")) == 1
    out = run("softhsm2-util", "--show-slots", env=token.env).stdout
    assert "gw" in out

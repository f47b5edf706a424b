"""postern rotate: sets of files from our own agent, and what is told of them. docs/rotation.md."""

import json
import os
import pathlib
import signal
import stat
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from lab import admin_ask, wait_for
from node import UIDS, spiffe_id
from pushing import PushingAgent
from rotation_readers import Reader
from rotations import CONF, Rotations

UID = UIDS["client"]


class Rotate:
    """One configuration and its daemon, as the uid that the agent knows as `client`."""

    def __init__(self, node, outputs, extra="", uid=UID, socket=None):
        self.node, self.uid = node, uid
        self.dir = node.lab.private_dir("rotate", uid)
        self.files = self.dir / "out"
        self.admin = self.dir / "admin.sock"
        self.conf = node.conf / "rotate.yaml"
        self.socket = socket or node.socket
        self.process = None
        self.starts = 0
        self.write(outputs, extra)

    def write(self, outputs, extra=""):
        self.conf.write_text(
            f"kind: Rotate\nlevel: 1\nidentity: {{socket: 'unix:{self.socket}'}}\n"
            f"admin: {{socket: {self.admin}, allow_uids: [0, {self.uid}]}}\noutputs:\n"
            + outputs.replace("DIR", str(self.files))
            + extra
        )

    def start(self):
        self.starts += 1
        self.process = self.node.lab.start(
            f"rotate{self.starts}", [self.node.postern, "rotate", self.conf], uid=self.uid
        )
        return self

    def run(self, *argv, timeout=60, uid=None):
        return self.node.lab.run_in(
            [self.node.postern, "rotate", *argv, self.conf], uid=self.uid if uid is None else uid, timeout=timeout
        )

    def events(self, event, **want):
        found = []
        for line in self.process.err().splitlines():
            try:
                o = json.loads(line)
            except ValueError:
                continue
            if o.get("event") == event and all(o.get(k) == v for k, v in want.items()):
                found.append(o)
        return found

    def wait_event(self, event, timeout=20, **want):
        def seen():
            assert self.process.alive() or self.events(event, **want), self.process.err()[-3000:]
            return self.events(event, **want)

        return wait_for(f"{event} {want}", seen, timeout)[-1]

    def status(self):
        return json.loads(admin_ask(self.admin, "status"))

    def generation(self):
        target = os.readlink(self.files / "..data")
        return int(target.split("-")[1])


SEPARATE = "- {name: web, directory: DIR, layout: separate}\n"


def public_of(path):
    cert = x509.load_pem_x509_certificate(path.read_bytes())
    return cert.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_of_key(path, password=None):
    key = serialization.load_pem_private_key(path.read_bytes(), password)
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [[], ["--status"], ["--once", "--status"], ["--timeout", "5"], ["--once", "--timeout", "soon"], ["--json"]]
)
def test_wrong_use(node, argv):
    p = node.lab.run_in([node.postern, "rotate", *argv, *(["/x"] if argv not in ([], ["--status"]) else [])])
    assert p.returncode == 2 and "usage: postern rotate" in p.stderr


def test_no_agent(node):
    r = Rotate(node, SEPARATE)
    p = r.run("--once", "--timeout", "1")
    assert p.returncode == 1
    assert "once_timeout" in p.stderr and "agent_away" in p.stderr
    assert not (r.files / "tls.crt").exists()
    p = r.run("--status")
    assert p.returncode == 2 and "missing" in p.stdout and "nothing was written yet" in p.stdout


# --- files -----------------------------------------------------------------------------------------


def test_once(node):
    node.start_agent()
    r = Rotate(node, SEPARATE)
    p = r.run("--once")
    assert p.returncode == 0, p.stderr
    assert public_of(r.files / "tls.crt") == public_of_key(r.files / "tls.key")
    assert b"BEGIN CERTIFICATE" in (r.files / "ca.crt").read_bytes()
    assert mode(r.files / "tls.key") == 0o600 and mode(r.files / "tls.crt") == 0o644
    assert mode(r.files) == 0o755
    p = r.run("--status")
    assert p.returncode == 0 and "fresh" in p.stdout and spiffe_id("client") in p.stdout, p.stdout + p.stderr
    doc = json.loads(r.run("--status", "--json").stdout)
    assert doc["state"] == "fresh" and doc["outputs"][0]["generation"] == 1


def test_daemon_renews_and_ends(node):
    node.start_agent(ttl="10s")
    r = Rotate(node, SEPARATE, "renew: {at: 30%, jitter: 5%}\n").start()
    r.wait_event("ready")
    first = (r.files / "tls.crt").read_bytes()
    wait_for("another generation", lambda: r.generation() >= 3)
    assert (r.files / "tls.crt").read_bytes() != first
    assert public_of(r.files / "tls.crt") == public_of_key(r.files / "tls.key")
    st = r.status()
    assert st["role"] == "rotate" and st["outputs"][0]["state"] == "fresh" and st["hardening"]["seccomp"] == "rotate"
    assert r.process.stop(signal.SIGTERM) == 0
    assert (r.files / "tls.key").exists()


# --- readers ---------------------------------------------------------------------------------------


def test_rotations_under_readers(build, tmp_path):
    """The short form of tests/handles/rotations: no reader ever sees half a set, whenever the daemon is killed."""
    seed = int.from_bytes(os.urandom(4), "big")
    result = Rotations(build, tmp_path, rotations=120, kill_every=15, seed=seed).run()
    assert result["ok"], result
    assert result["held"]["certificates"] > 20 and result["combined"]["certificates"] > 20, result
    assert result["kills"] > 0, result


@pytest.mark.parametrize("how", ["held", "combined"])
def test_readers_see_what_is_torn(build, tmp_path, how):
    """A reader that cannot tell would make the test above pass for nothing."""
    with PushingAgent(build, "spiffe://example.org/web") as agent:
        for name in ("a", "b"):
            conf = tmp_path / f"{name}.yaml"
            conf.write_text(CONF.format(socket=agent.socket, directory=tmp_path / name))
            subprocess.run([build / "proxy" / "postern", "rotate", "--once", conf], check=True, timeout=60, capture_output=True)
            agent.push()
    other = (tmp_path / "b" / "tls.key").read_bytes()
    if how == "held":
        (tmp_path / "a" / "..data" / "tls.key").write_bytes(other)
    else:
        combined = tmp_path / "a" / "..data" / "site.pem"
        combined.write_bytes(combined.read_bytes().split(b"-----BEGIN PRIVATE KEY-----")[0] + other)
    result = Reader(how, tmp_path / "a", seed=1, most=3).end(ask=False)
    assert result["n_torn"] == result["reads"] == 3, result
    assert "another one's" in result["torn"][0]


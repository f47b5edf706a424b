"""postern rotate: sets of files from our own agent, and what is told of them. docs/rotation.md."""

import base64
import json
import os
import shutil
import signal
import socket
import stat
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from lab import admin_ask, log_events, wait_for
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
            + outputs.replace("OTHER", str(self.dir / "other")).replace("DIR", str(self.files))
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
        return log_events(self.process.err(), event, **want)

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



# --- kinds of files --------------------------------------------------------------------------------

EVERYTHING = """- name: all
  directory: DIR
  identity: {spiffe_id: 'spiffe://test.example/client'}
  passphrase_file: PASS
  files:
    - {name: chain.pem, what: chain}
    - {name: leaf.pem, what: leaf}
    - {name: mid.pem, what: intermediates}
    - {name: key.pem, what: key}
    - {name: sec1.pem, what: key, encoding: sec1}
    - {name: site.pem, what: combined, order: key-first}
    - {name: ca.pem, what: bundle, trust: all}
    - {name: key.p12, what: pkcs12}
    - {name: trust.p12, what: truststore}
    - {name: billing.jwt, what: jwt, audience: [billing, audit]}
    - {name: keys.jwks, what: jwks}
"""


def passphrase(node, text="correct horse\n", mode=0o600):
    path = node.lab.dir / "pass"
    path.write_text(text)
    os.chown(path, UID, UID)
    path.chmod(mode)
    return path


def openssl(*argv):
    return subprocess.run(["openssl", *map(str, argv)], capture_output=True, text=True, timeout=60, check=False)


def claims(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def test_every_kind_of_file(node):
    node.start_agent()
    r = Rotate(node, EVERYTHING.replace("PASS", str(passphrase(node))))
    p = r.run("--once")
    assert p.returncode == 0, p.stderr
    d = r.files / "..data"
    leaf = public_of(d / "leaf.pem")
    for name in ("key.pem", "sec1.pem", "site.pem"):
        assert public_of_key(d / name) == leaf, name
    assert b"BEGIN EC PRIVATE KEY" in (d / "sec1.pem").read_bytes()
    assert (d / "site.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY")
    assert (d / "chain.pem").read_bytes() == (d / "leaf.pem").read_bytes() + (d / "mid.pem").read_bytes()
    p = openssl("verify", "-CAfile", d / "ca.pem", "-untrusted", d / "mid.pem", d / "leaf.pem")
    assert p.returncode == 0, p.stderr
    p = openssl("pkcs12", "-in", d / "key.p12", "-passin", f"file:{node.lab.dir}/pass", "-nodes", "-info")
    assert p.returncode == 0 and "BEGIN PRIVATE KEY" in p.stdout, p.stderr
    assert "PBES2" in p.stderr and "AES-256-CBC" in p.stderr and "MAC: sha256" in p.stderr, p.stderr
    assert openssl("pkcs12", "-in", d / "key.p12", "-passin", "pass:wrong", "-nodes").returncode != 0
    for name in os.listdir(d):
        secret = name in ("key.pem", "sec1.pem", "site.pem", "key.p12", "billing.jwt")
        assert mode(d / name) == (0o600 if secret else 0o644), name
    token = (d / "billing.jwt").read_text()
    assert claims(token)["sub"] == spiffe_id("client") and claims(token)["aud"] == ["billing", "audit"]
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    keys = json.loads((d / "keys.jwks").read_text())["keys"]
    assert header["kid"] in [k["kid"] for k in keys]
    parts = json.loads((d / "..set.json").read_text())["parts"]
    assert [p["file"] for p in parts] == ["", "billing.jwt"]
    assert parts[1]["ends"] == claims(token)["exp"]


@pytest.mark.skipif(shutil.which("keytool") is None, reason="no JDK here")
def test_java_reads_the_stores(node):
    node.start_agent()
    r = Rotate(node, f"- {{name: java, directory: DIR, layout: java, passphrase_file: {passphrase(node)}}}\n")
    assert r.run("--once").returncode == 0
    for name, kind, n in (("keystore.p12", "PrivateKeyEntry", 1), ("truststore.p12", "trustedCertEntry", 1)):
        p = subprocess.run(
            ["keytool", "-J-Duser.language=en", "-list", "-keystore", str(r.files / name), "-storepass:file", str(node.lab.dir / "pass")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert p.returncode == 0 and p.stdout.count(kind) == n, p.stdout + p.stderr


def test_tokens_alone(node):
    """No SVID is asked for; a token is renewed by its own life, and a short one makes a set stale."""
    node.write_entries(extra="")
    text = (node.conf / "entries.yaml").read_text().replace("ttl: 1h", "ttl: 1h\n    jwt_ttl: 30s")
    (node.conf / "entries.yaml").write_text(text)
    node.start_agent()
    r = Rotate(
        node,
        "- {name: t, directory: DIR, files: [{name: t.jwt, what: jwt, audience: [x]}, {name: k, what: jwks}]}\n",
        "renew: {at: 10%, jitter: 1%}\n",
    ).start()
    r.wait_event("ready")
    first = (r.files / "t.jwt").read_text()
    wait_for("another token", lambda: (r.files / "t.jwt").read_text() != first)
    assert claims((r.files / "t.jwt").read_text())["exp"] > claims(first)["exp"]
    assert "issued" not in [json.loads(x).get("event") for x in node.agent.err().splitlines() if x.startswith("{")]
    out = r.status()["outputs"][0]
    assert out["state"] == "fresh" and out["serial"] is None and out["agent_connected"] is None


# --- agents ----------------------------------------------------------------------------------------


def test_foreign_agent(node):
    """An agent that pushes keys of its own making, as SPIRE does: each push is a generation."""
    with PushingAgent(node.build, spiffe_id("client"), foreign=True) as agent:
        r = Rotate(node, SEPARATE, socket=agent.socket).start()
        r.wait_event("rotation", notice="fell_back")
        r.wait_event("ready")
        for n in range(2, 5):
            agent.push()
            wait_for("the next generation", lambda n=n: r.generation() == n)
            assert public_of(r.files / "tls.crt") == public_of_key(r.files / "tls.key")
        r.files.chmod(0o777)
        agent.push()
        r.wait_event("rotation", notice="write_failed")
        out = r.status()["outputs"][0]
        assert out["state"] == "fresh" and out["write_error"] and out["last_error"] == out["write_error"]
        p = r.run("--status")
        assert p.returncode == 1 and f"not written: {out['write_error']}" in p.stdout, p.stdout
        r.files.chmod(0o755)
        wait_for("the set to be written", lambda: r.status()["outputs"][0]["write_error"] is None)
        agent.tell("down")
        r.wait_event("rotation", notice="agent_away")
        assert r.run("--status").returncode == 0
        agent.tell("up")
        r.wait_event("rotation", notice="agent_back")
        agent.tell("deny")
        r.wait_event("rotation", notice="denied")
        assert public_of(r.files / "tls.crt") == public_of_key(r.files / "tls.key")
        agent.tell("allow")


def test_status_tells_stale_and_expired(node):
    with PushingAgent(node.build, spiffe_id("client"), ttl=12) as agent:
        r = Rotate(node, SEPARATE, "warn_before_expiry: 50%\nrenew: {at: 40%}\n", socket=agent.socket).start()
        r.wait_event("ready")
        agent.tell("down")
        assert r.run("--status").returncode == 0
        r.wait_event("set_stale", state="stale")
        p = r.run("--status", "--json")
        assert p.returncode == 1 and json.loads(p.stdout)["state"] == "stale", p.stdout
        r.wait_event("set_stale", state="expired", timeout=30)
        assert r.run("--status").returncode == 2
        assert (r.files / "tls.key").exists()
        metrics = admin_ask(r.admin, "metrics")
        assert 'postern_rotate_sets{state="expired"} 1' in metrics, metrics
        agent.tell("up")
        agent.push()
        r.wait_event("set_fresh")
        assert r.run("--status").returncode == 0


# --- whose files -----------------------------------------------------------------------------------


def test_files_for_another_user(node):
    """The daemon is root, the files are somebody's: they can read them and change nothing."""
    node.write_entries(uids={**UIDS, "host": 0})
    node.start_agent()
    owner, group, stranger = 48301, 48302, 48303
    r = Rotate(
        node,
        f"- {{name: web, directory: DIR, layout: separate, owner: '{owner}', group: '{group}', mode: '0640'}}\n",
        uid=0,
    ).start()
    r.wait_event("ready")
    st = (r.files / "tls.key").stat()
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (owner, group, 0o640)
    hardening = r.status()["hardening"]
    assert int(hardening["capabilities"], 16) == 1, hardening  # CAP_CHOWN

    def try_as(uid, gid, script):
        argv = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--", "sh", "-c", script]
        return subprocess.run(argv, capture_output=True, timeout=30, check=False, cwd="/").returncode

    assert try_as(owner, owner, f"cat {r.files}/tls.key") == 0
    assert try_as(stranger, group, f"cat {r.files}/tls.key") == 0
    assert try_as(stranger, stranger, f"cat {r.files}/tls.key") != 0
    assert try_as(stranger, stranger, f"cat {r.files}/tls.crt") == 0
    for script in ("ln -sfn /etc ..data", "rm ..data/tls.crt", "mv ..data/tls.key ..data/x", "touch x", "touch ..data/x"):
        assert try_as(owner, group, f"cd {r.files} && {script}") != 0, script
    # Old generations go although their files belong to somebody else.
    before = r.generation()
    r.process.send_signal(signal.SIGHUP)
    wait_for("another generation", lambda: r.generation() > before)
    assert not r.events("rotation"), r.process.err()


def test_files_for_another_user_without_root(node):
    """CAP_CHOWN is all that it takes; it is kept, and old keys are overwritten although they were given away."""
    node.start_agent()
    owner = 48301
    r = Rotate(node, f"- {{name: web, directory: DIR, layout: separate, owner: '{owner}', keep: 1}}\n")
    caps = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all,+chown", "--ambient-caps=-all,+chown", "--"]

    def start():
        r.starts += 1
        r.process = node.lab.start(f"rotate{r.starts}", [*caps, node.postern, "rotate", r.conf])
        r.wait_event("ready")

    start()
    st = (r.files / "tls.key").stat()
    assert (st.st_uid, stat.S_IMODE(st.st_mode)) == (owner, 0o600)
    hardening = r.status()["hardening"]
    assert hardening["uid"] == UID and int(hardening["capabilities"], 16) == 1, hardening
    assert r.process.stop() == 0
    # Of long ago, and one before it: that goes with the next change, by a process that may not read its key.
    first = r.files / "..gen-0000000000000001-00000000002"
    (r.files / os.readlink(r.files / "..data")).rename(first)
    (r.files / "..data").unlink()
    (r.files / "..data").symlink_to(first.name)
    old = r.files / "..gen-0000000000000000-00000000001"
    shutil.copytree(first, old)
    for path in (old, *old.iterdir()):
        os.chown(path, UID if path == old else owner, owner)
    kept = node.lab.dir / "kept"
    os.link(old / "tls.key", kept)
    start()
    wait_for("the next generation", lambda: r.generation() == 2)
    wait_for("the old one to go", lambda: not old.exists())
    assert set(kept.read_bytes()) == {0}
    assert not r.events("rotation"), r.process.err()


def test_others_files_without_the_right(node):
    node.start_agent()
    r = Rotate(node, "- {name: web, directory: DIR, layout: separate, owner: root}\n")
    p = r.run("--once", "--timeout", "5")
    assert p.returncode == 1 and "CAP_CHOWN" in p.stderr, p.stderr


def test_second_daemon(node):
    node.start_agent()
    r = Rotate(node, SEPARATE).start()
    r.wait_event("ready")
    p = r.run("--once")
    assert p.returncode == 1 and "another daemon keeps this directory" in p.stderr, p.stderr
    assert r.process.alive()


# --- reload ----------------------------------------------------------------------------------------


def reload(r):
    n = len(r.events("reloaded")) + len(r.events("reload_failed"))
    r.process.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(r.events("reloaded")) + len(r.events("reload_failed")) > n)


def test_reload(node):
    node.start_agent()
    r = Rotate(node, SEPARATE).start()
    r.wait_event("ready")
    # Other files and modes in the same directory.
    r.write("- {name: web, directory: DIR, mode: '0400', files: [{name: one.pem, what: combined}, {name: t.jwt, what: jwt, audience: [x]}]}\n")
    reload(r)
    wait_for("the new files", lambda: (r.files / "one.pem").exists() and not (r.files / "tls.key").exists())
    assert mode(r.files / "one.pem") == 0o400
    assert r.status()["last_reload"]["ok"]


@pytest.mark.parametrize(
    "outputs, extra, said",
    [
        ("- {name: web, directory: DIR, layout: separate, mode: '0644'}\n", "", "lets everybody at keys"),
        ("- {name: web, directory: DIR, layout: apache}\n", "", "no such value"),
        ("- {name: web, directory: OTHER, layout: separate}\n", "", "restart it"),
        (SEPARATE, "metrics: {address: '127.0.0.1:1'}\n", "restart it"),
    ],
)
def test_reload_refused(node, outputs, extra, said):
    node.start_agent()
    r = Rotate(node, SEPARATE).start()
    r.wait_event("ready")
    before = (r.files / "tls.key").read_bytes()
    r.write(outputs, extra)
    reload(r)
    assert said in json.dumps(r.events("reload_failed")), r.process.err()
    assert not r.status()["last_reload"]["ok"]
    assert (r.files / "tls.key").read_bytes() == before and r.process.alive()


# --- the service manager ---------------------------------------------------------------------------


def test_service_manager(node):
    """READY=1 when the first sets are there and not before; signs of life; the end."""
    path = node.run / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        path.chmod(0o777)
        s.settimeout(20)
        r = Rotate(node, SEPARATE)
        env = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"}
        r.process = node.lab.start("rotate", [node.postern, "rotate", r.conf], uid=UID, env=env)

        def until(word, refuse=None):
            while True:
                text = s.recv(4096).decode()
                assert refuse is None or refuse not in text, text
                if word in text:
                    return

        until("WATCHDOG=1", refuse="READY=1")
        r.wait_event("rotation", notice="agent_away")
        node.start_agent()
        until("READY=1")
        until("WATCHDOG=1")
        r.process.send_signal(signal.SIGTERM)
        until("STOPPING=1")


def test_status_command(node):
    """postern status asks the daemon itself, by its file."""
    node.start_agent()
    r = Rotate(node, SEPARATE).start()
    r.wait_event("ready")
    p = node.lab.run_in([node.postern, "status", "--config", r.conf, "--json"])
    assert p.returncode == 0 and json.loads(p.stdout)["role"] == "rotate", p.stdout + p.stderr
    assert node.lab.run_in([node.postern, "check", r.conf]).returncode == 0


def test_many_outputs(node):
    """Each has a key of its own, in one process."""
    node.start_agent()
    n = 24
    outputs = "".join(f"- {{name: o{i}, directory: DIR{i}, layout: haproxy}}\n" for i in range(n))
    r = Rotate(node, outputs)
    p = r.run("--once")
    assert p.returncode == 0, p.stderr
    dirs = [d for d in r.dir.iterdir() if d.is_dir()]
    assert len(dirs) == n
    assert len({public_of(d / "tls.pem") for d in dirs}) == n
    p = r.run("--status")
    assert p.returncode == 0 and p.stdout.count(" fresh ") == n, p.stdout

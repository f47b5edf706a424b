"""The root's key in a PKCS#11 token, SoftHSM's here. docs/authority.md, "A token"."""

import json
import os
import signal
import ssl

import pytest
from lab import admin_ask, run, wait_for
from node import TD, UIDS

SIGNER_UID = 64605
PIN = "8311-postern"
# A P-256 private key as PKCS#8, from its algorithm to the head of its octets.
PKCS8 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107046d")
MODULES = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
]


class Token:
    """A token of its own: configuration, directory, PIN file, all of the signer's user where it has to be."""

    def __init__(self, lab, label="postern-test"):
        self.label = label
        self.module = next(m for m in MODULES if os.path.exists(m))
        base = lab.private_dir("token")
        base.chmod(0o755)
        self.dir, self.conf, self.pin = base / "tokens", base / "softhsm2.conf", base / "pin"
        self.dir.mkdir(mode=0o700)
        self.conf.write_text(f"directories.tokendir = {self.dir}\nobjectstore.backend = file\nlog.level = INFO\n")
        self.env = dict(os.environ, SOFTHSM2_CONF=str(self.conf))
        run("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "so-pin-1", "--pin", PIN, env=self.env)
        self.own()
        self.write_pin(PIN)

    def own(self):
        for root, dirs, files in os.walk(self.dir):
            for name in [root, *(os.path.join(root, f) for f in dirs + files)]:
                os.chown(name, SIGNER_UID, SIGNER_UID)

    def write_pin(self, text):
        new = self.pin.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(text + "\n")
        new.rename(self.pin)

    def agent(self, node, label=None, module=None, ca=""):
        (node.conf / "agent.yaml").write_text(
            f"kind: Agent\nlevel: 1\ntrust_domain: {TD}\nsocket: {node.socket}\nstate_dir: {node.state}\n"
            f"entries: entries.yaml\nca:\n  key_at_rest:\n    state: plain\n    pkcs11:\n"
            f"      module: {module or self.module}\n      token: {label or self.label}\n      pin_file: {self.pin}\n"
            f"      token_paths: [{self.dir}]\n      environment: ['SOFTHSM2_CONF={self.conf}']\n{ca}"
            f"admin:\n  socket: {node.run}/agent-admin.sock\n  allow_uids: [0]\n"
        )

    def objects(self):
        """Labels and whether they may be taken out, of all private keys."""
        out = run("pkcs11-tool", "--module", self.module, "--login", "--pin", PIN, "--list-objects", "--type", "privkey", env=self.env).stdout
        return out

    def labels(self):
        objects = self.objects().split("Private Key Object")[1:]
        return sorted(line.split()[-1] for o in objects for line in o.splitlines() if line.strip().startswith("label:"))


@pytest.fixture
def token(lab):
    return Token(lab)


def status(node):
    return json.loads(admin_ask(node.run / "agent-admin.sock", "status"))


def process(node, role):
    return next(p for p in status(node)["processes"] if p["role"] == role)


def ca(node, *args, code=0):
    r = run(node.postern, "ca", *args, "--json", "--control", node.state / "control.sock", check=False)
    assert r.returncode == code, (args, r.returncode, r.stdout, r.stderr)
    return json.loads(r.stdout) if code == 0 else r.stderr


def active(doc):
    return next(a["id"] for a in doc["authorities"] if a["kind"] == "x509" and a["state"] == "active")


def roots(node):
    return status(node)["authority"]["root_serials"]


def stop(node):
    assert node.agent.stop() == 0, node.agent.err()[-3000:]


def fetch(node, timeout=20):
    """An SVID that verifies against the bundle that comes with it, in OpenSSL's eyes."""
    out = node.lab.private_dir("svid", uid=UIDS["client"])
    r = node.lab.run_in(
        [node.postern, "svid", "fetch", "--socket", f"unix:{node.socket}", "--write", out],
        netns=node.netns, uid=UIDS["client"], timeout=timeout,
    )
    assert r.returncode == 0, r.stderr
    v = run("openssl", "verify", "-CAfile", out / "bundle.pem", "-untrusted", out / "svid.pem", out / "svid.pem", check=False)
    assert v.returncode == 0, v.stderr
    return (out / "svid.pem").read_text(), (out / "bundle.pem").read_text()


def start(node, token, **kw):
    if not (node.conf / "entries.yaml").exists():
        node.write_entries(kw.pop("ttl", "1h"))
    token.agent(node, **kw)
    return node.start_agent()


def refused(node, token, status=2, **kw):
    """What the agent says when it does not start."""
    node.write_entries()
    token.agent(node, **kw)
    agent = node.start_agent(wait=False)
    wait_for("the agent's end", lambda: not agent.alive(), 30)
    assert agent.stop() in ([1, 2] if status is None else [status])
    assert not (node.state / "ca" / "state").exists()
    return agent.err()


# --- refusals --------------------------------------------------------------------------------------


def test_wrong_pin(node, token):
    """Said once, and it costs the token one try and no more."""
    token.write_pin("0000-wrong")
    text = refused(node, token, status=1)
    assert "the user PIN is wrong" in text and token.label in text and "0000-wrong" not in text
    assert "final try" not in run("softhsm2-util", "--show-slots", env=token.env).stdout.lower()


def test_pin_file_that_others_can_read(node, token):
    token.pin.chmod(0o644)
    assert "mode 0644" in refused(node, token)


def test_missing_token(node, token):
    assert "no token 'another'" in refused(node, token, label="another")


def test_missing_module(node, token):
    text = refused(node, token, module="/nowhere/libtoken.so")
    assert "the module cannot be loaded" in text and "/nowhere/libtoken.so" in text


def test_library_that_is_no_module(node, token):
    libc = next(line.split()[-1] for line in open("/proc/self/maps") if "libc.so.6" in line)
    assert "no PKCS#11 module" in refused(node, token, module=libc)


def test_key_that_can_be_taken_out(node, token):
    """A key that somebody made under that label is used only if it cannot leave the token."""
    run(
        "pkcs11-tool", "--module", token.module, "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1",
        "--label", "postern", "--id", "01", "--extractable", env=token.env,
    )
    token.own()
    assert "can be taken out of the token" in refused(node, token, status=None)


def test_key_that_is_there(node, token):
    """The operator's own key of that label is used, and keys of other labels are nobody's business."""
    for label, number in (("postern", "01"), ("posternish", "02")):
        run(
            "pkcs11-tool", "--module", token.module, "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1",
            "--label", label, "--id", number, "--sensitive", env=token.env,
        )
    token.own()
    start(node, token)
    fetch(node)
    assert token.labels() == ["postern", "posternish"]


# --- a life ----------------------------------------------------------------------------------------


def test_first_start_and_restart(node, token):
    """The key is made in the token, is in no file of the agent's, and the root outlives a restart."""
    start(node, token)
    svid, bundle = fetch(node)
    assert token.labels() == ["postern"]
    assert "never extractable" in token.objects()
    root = roots(node)
    assert status(node)["authority"]["token"] == "ok"
    assert status(node)["outage"]["ends_first"] == "token"
    signer = process(node, "signer")
    assert signer["uid"] == SIGNER_UID and signer["no_new_privs"] and signer["seccomp"] and signer["caps"] == "0"
    assert not signer["dumpable"]
    assert "postern_agent_token_ok 1" in admin_ask(node.run / "agent-admin.sock", "metrics")
    stop(node)

    state = (node.state / "ca" / "state").read_bytes()
    assert ssl.PEM_cert_to_DER_cert(bundle) in state  # the root is there, so its record is what is looked at
    held = sum(f.read_bytes().count(PKCS8) for f in node.state.rglob("*") if f.is_file())
    assert held == 1  # that for tokens
    start(node, token)
    assert roots(node) == root and token.labels() == ["postern"]
    assert fetch(node)[1] == bundle


def test_configuration_that_forgets_the_token(node, token):
    start(node, token)
    stop(node)
    node.write_agent()
    agent = node.start_agent(wait=False)
    wait_for("the agent's end", lambda: not agent.alive(), 30)
    assert agent.stop() == 2
    assert "lives in a token" in agent.err()


def test_signer_killed(node, token):
    """SVIDs go on without it, and it comes back by itself."""
    start(node, token)
    before = process(node, "signer")["pid"]
    os.kill(before, signal.SIGSTOP)  # hangs: issuing asks it nothing
    fetch(node)
    os.kill(before, signal.SIGKILL)
    fetch(node)
    wait_for("another signer", lambda: process(node, "signer")["pid"] != before, 20)
    wait_for("the token", lambda: status(node)["authority"]["token"] == "ok", 20)
    assert process(node, "signer")["restarts"] == 1
    ca(node, "prepare")


def test_signer_hangs(node, token):
    """What needs the token is refused after a moment, the rest goes on, and the next signer is asked anew."""
    start(node, token)
    before = process(node, "signer")["pid"]
    os.kill(before, signal.SIGSTOP)
    assert "its signer does not answer" in ca(node, "prepare", code=1)
    wait_for("status", lambda: status(node)["authority"]["token"] == "away", 10)
    fetch(node)
    os.kill(before, signal.SIGCONT)  # it finds its channel closed
    wait_for("another signer", lambda: process(node, "signer")["pid"] != before, 20)
    wait_for("the token", lambda: status(node)["authority"]["token"] == "ok", 20)
    ca(node, "prepare")


def test_start_without_the_token(node, token):
    """A start needs it: the agent says so, and nothing of the state is touched."""
    start(node, token)
    stop(node)
    state = (node.state / "ca" / "state").read_bytes()
    away = token.dir.with_name("away")
    token.dir.rename(away)
    agent = node.start_agent(wait=False)
    wait_for("the agent's end", lambda: not agent.alive(), 30)
    assert "no token" in agent.err() or "the module does not start" in agent.err(), agent.err()[-2000:]
    assert (node.state / "ca" / "state").read_bytes() == state
    away.rename(token.dir)
    start(node, token)


def test_token_away_and_back(node, token):
    """Renewal fails while the token is away, is told and tried again, and succeeds when it is back."""
    start(node, token, ttl="10s", ca="  node_ttl: 24s\nsvid:\n  ttl: 10s\n")
    first = status(node)["authority"]["node_not_after"]
    away = token.dir.with_name("away")
    token.dir.rename(away)
    os.kill(process(node, "signer")["pid"], signal.SIGKILL)
    wait_for("the failure", lambda: '"event":"node_renewal_failed"' in node.agent.err(), 20)
    assert status(node)["authority"]["token"] == "away"
    assert "postern_agent_token_ok 0" in admin_ask(node.run / "agent-admin.sock", "metrics")
    fetch(node)
    away.rename(token.dir)
    wait_for("renewal", lambda: status(node)["authority"]["node_not_after"] != first, 20)
    wait_for("the token", lambda: status(node)["authority"]["token"] == "ok", 10)
    fetch(node)


def test_wrong_pin_while_it_runs(node, token):
    """A PIN that is wrong is tried once, not again and again until the token locks itself."""
    start(node, token)
    token.write_pin("0000-wrong")
    os.kill(process(node, "signer")["pid"], signal.SIGKILL)
    wait_for("giving up", lambda: '"event":"signer_given_up"' in node.agent.err(), 20)
    fetch(node)
    token.write_pin(PIN)
    wait_for("the token", lambda: status(node)["authority"]["token"] == "ok", 20)


def test_rotation(node, token):
    """prepare, activate, taint, retire: each root has a key of its own in the token."""
    start(node, token)
    first = active(ca(node, "show"))
    doc = ca(node, "prepare")
    second = next(a["id"] for a in doc["authorities"] if a["state"] == "prepared")
    assert token.labels() == ["postern", f"postern-{second}"]
    assert active(ca(node, "activate")) == second
    ca(node, "taint", first)
    svid, bundle = fetch(node)
    ca(node, "retire", first, "--force")
    assert len(roots(node)) == 1
    fetch(node)
    stop(node)
    start(node, token)
    assert active(ca(node, "show")) == second
    fetch(node)
    assert token.labels() == ["postern", f"postern-{second}"]  # removing one is the operator's to do


def test_from_a_key_in_the_state_file(node, token):
    """A root of before goes on, with a warning, until the next one, which is in the token."""
    node.start_agent()
    root = roots(node)
    stop(node)
    assert (node.state / "ca" / "state").read_bytes().count(PKCS8) == 2  # the search finds what is there
    start(node, token)
    assert roots(node) == root and '"event":"root_not_in_token"' in node.agent.err()
    assert token.labels() == []
    ca(node, "prepare")
    ca(node, "activate")
    assert len(token.labels()) == 1
    fetch(node)

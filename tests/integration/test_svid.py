"""postern svid: a person's client, against our own agent; and what the agent issues, in others' eyes."""

import re
import signal
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from lab import wait_for
from node import UIDS, spiffe_id


def svid(node, *argv, uid=UIDS["client"], timeout=30):
    return node.lab.run_in(
        [node.postern, "svid", *argv, "--socket", f"unix:{node.socket}"], netns=node.netns, uid=uid, timeout=timeout
    )


def openssl(*argv):
    return subprocess.run(["openssl", *argv], capture_output=True, text=True, timeout=30, check=False)


# --- refusals --------------------------------------------------------------------------------------


def test_no_agent(node):
    p = svid(node, "fetch")
    assert p.returncode == 1
    assert str(node.socket) in p.stderr and "agent_away" in p.stderr


@pytest.mark.parametrize(
    "argv",
    [[], ["get"], ["fetch", "--sokcet", "/x"], ["fetch", "--key"], ["fetch", "--key", "mine"], ["fetch", "--timeout", "-1"]],
)
def test_wrong_use(node, argv):
    p = node.lab.run_in([node.postern, "svid", *argv])
    assert p.returncode == 2 and "usage: postern svid" in p.stderr


def test_wrong_addresses(node):
    for address in ("tcp://127.0.0.1:80", "unix:agent.sock", "unix://host/agent.sock"):
        p = node.lab.run_in([node.postern, "svid", "fetch", "--socket", address])
        assert p.returncode == 2 and "unix:/path" in p.stderr, p.stderr
    p = node.lab.run_in([node.postern, "svid", "fetch", "--socket", "/x", "--id", "spiffe://A/b"])
    assert p.returncode == 2 and "lower case" in p.stderr


@pytest.mark.parametrize("key", ["agent", "csr", "auto"])
def test_nobody(node, key):
    node.start_agent()
    p = svid(node, "fetch", "--key", key, uid=48999)
    assert p.returncode == 1
    assert "denied" in p.stderr and "PermissionDenied" in p.stderr, p.stderr


@pytest.mark.parametrize("key", ["agent", "csr"])
def test_somebody_else(node, key):
    node.start_agent()
    p = svid(node, "fetch", "--key", key, "--id", spiffe_id("server"))
    assert p.returncode == 1 and "denied" in p.stderr, p.stderr


# --- what is shown and written ---------------------------------------------------------------------


@pytest.mark.parametrize("key", ["agent", "csr"])
def test_fetch(node, key):
    node.start_agent()
    p = svid(node, "fetch", "--key", key)
    assert p.returncode == 0, p.stderr
    assert re.search(rf"^identity +{spiffe_id('client')}$", p.stdout, re.M), p.stdout
    assert re.search(r"^trust +test.example: 1 authority$", p.stdout, re.M), p.stdout
    assert "PRIVATE" not in p.stdout + p.stderr


@pytest.mark.parametrize("key", ["agent", "csr"])
def test_files_in_others_eyes(node, key):
    """X509-SVID.md, the field reference, read by another library; the path judged by OpenSSL's strict mode."""
    node.start_agent()
    out = node.lab.private_dir(f"out-{key}", UIDS["client"]) / "svid"
    assert svid(node, "fetch", "--key", key, "--write", out).returncode == 0
    assert sorted(f.name for f in out.iterdir()) == ["bundle.pem", "svid.pem", "svid_key.pem"]
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in out.iterdir())

    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", (out / "svid.pem").read_text(), re.S)
    leaf, *above = [x509.load_pem_x509_certificate(b.encode()) for b in blocks]
    loaded = serialization.load_pem_private_key((out / "svid_key.pem").read_bytes(), None)
    assert loaded.public_key().public_numbers() == leaf.public_key().public_numbers()

    ext = leaf.extensions
    names = ext.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe_id("client")]
    assert names.critical == (len(list(leaf.subject)) == 0)
    constraints = ext.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS)
    assert constraints.critical and not constraints.value.ca
    usage = ext.get_extension_for_oid(ExtensionOID.KEY_USAGE)
    assert usage.critical and usage.value.digital_signature
    assert not usage.value.key_cert_sign and not usage.value.crl_sign
    purposes = set(ext.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value)
    assert purposes == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.serial_number.bit_length() > 64

    assert above
    roots = x509.load_pem_x509_certificate((out / "bundle.pem").read_bytes())
    for ca in [*above, roots]:
        ext = ca.extensions
        assert ext.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS).value.ca
        assert ext.get_extension_for_oid(ExtensionOID.KEY_USAGE).critical
        assert ext.get_extension_for_oid(ExtensionOID.KEY_USAGE).value.key_cert_sign
        uris = ext.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert uris.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://test.example"]
        assert ca.not_valid_after_utc >= leaf.not_valid_after_utc

    for purpose in ("sslserver", "sslclient"):
        p = openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", out / "bundle.pem", "-untrusted",
                    out / "svid.pem", out / "svid.pem")  # fmt: skip
        assert p.returncode == 0, p.stdout + p.stderr


# --- watching --------------------------------------------------------------------------------------


class Watch:
    def __init__(self, node, *argv):
        argv = [node.postern, "svid", "watch", *argv, "--socket", f"unix:{node.socket}"]
        self.process = node.lab.start("watch", argv, netns=node.netns, uid=UIDS["client"])

    def serials(self):
        return re.findall(r"^serial +([0-9a-f]+)$", self.process.out(), re.M)

    def wait_serials(self, n, timeout=40):
        def there():
            assert self.process.alive(), self.process.err()[-2000:]
            return len(set(self.serials())) >= n

        wait_for(f"{n} SVIDs", there, timeout)

    def wait_text(self, text):
        wait_for(text, lambda: text in self.process.err())


@pytest.mark.parametrize("key", ["agent", "csr"])
def test_rotation(node, key):
    node.start_agent(ttl="10s")
    watch = Watch(node, "--key", key)
    watch.wait_serials(3)
    watch.process.stop()
    assert "expired" not in watch.process.err()
    assert watch.process.p.returncode == 0


@pytest.mark.parametrize("key", ["agent", "csr"])
def test_agent_killed_and_back(node, key):
    """The agent dies without a word and comes back: nothing is asked for anew, and later it is."""
    node.start_agent(ttl="30s")
    watch = Watch(node, "--key", key)
    watch.wait_serials(1)
    node.agent.stop(signal.SIGKILL)
    watch.wait_text("agent_away")
    node.start_agent()
    watch.wait_serials(2)
    assert "expired" not in watch.process.err()


def test_agent_lost_its_authority(node):
    """A new root: with a key of our own, a certificate under it is asked for at once and not at half its life."""
    node.start_agent(ttl="1h")
    watch = Watch(node, "--key", "csr")
    watch.wait_serials(1)
    node.agent.stop()
    watch.wait_text("agent_away")
    subprocess.run(["rm", "-r", node.state], check=True)
    node.start_agent()
    watch.wait_serials(2)


def test_entitlement_goes(node):
    """The last entry goes: the agent ends the streams with PermissionDenied, and it is said."""
    node.start_agent()
    watch = Watch(node, "--key", "csr")
    watch.wait_serials(1)
    node.write_entries(uids={"server": UIDS["server"]})
    node.agent.send_signal(signal.SIGHUP)
    watch.wait_text("denied")
    node.write_entries()
    node.agent.send_signal(signal.SIGHUP)
    watch.wait_serials(2)

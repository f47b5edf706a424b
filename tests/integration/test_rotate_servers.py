"""Real servers with certificates that are exchanged under them: the long run is tests/handles/rotate-servers."""

import json
import pathlib
import subprocess
import sys

import pytest
import tls_servers
from lab import run
from rotating import Rotating, root_agent

HANDLE = pathlib.Path(__file__).resolve().parents[1] / "handles" / "rotate-servers"
MISSING = tls_servers.missing("nginx", "postgres", "pgbench")


@pytest.mark.skipif(bool(MISSING), reason=str(MISSING))
def test_no_request_fails(build):
    """A few rotations of nginx and PostgreSQL under load, each new certificate seen served."""
    p = subprocess.run(
        [sys.executable, HANDLE, "--build", build, "--rotations", "5"], capture_output=True, text=True, timeout=400, check=False
    )
    assert p.stdout, p.stderr
    result = json.loads(p.stdout)
    assert p.returncode == 0 and result["ok"], result
    assert result["served"] == {"nginx": 5, "postgres": 5}


@pytest.mark.skipif(bool(tls_servers.missing("keytool")), reason=str(tls_servers.missing("keytool")))
def test_java_keystore(node):
    """A keystore and a truststore that Java opens, also after a rotation."""
    root_agent(node)
    rot = Rotating(node, "  layout: java\n  passphrase_file: DIR/pass\n")
    (rot.dir / "pass").write_text("changeit-please\n")
    (rot.dir / "pass").chmod(0o600)
    rot.start()
    rot.wait_event("ready")

    def listed(name):
        return run(
            tls_servers.KEYTOOL, "-list", "-v", "-storetype", "PKCS12", "-keystore", rot.files / name,
            "-storepass", "changeit-please", timeout=60,
        ).stdout  # fmt: skip

    first = listed("keystore.p12")
    assert "Entry type: PrivateKeyEntry" in first and "spiffe://test.example/root" in first
    assert "Entry type: trustedCertEntry" in listed("truststore.p12")
    rot.renew()
    second = listed("keystore.p12")
    assert "Entry type: PrivateKeyEntry" in second and second != first

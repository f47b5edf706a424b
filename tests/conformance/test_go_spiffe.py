"""go-spiffe v2 as it is, where Go is there and its modules can be had."""

import os
import pathlib
import shutil
import subprocess

import pytest
from node import TD

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE.parent.parent / "build-go" / "gospiffe"


@pytest.fixture(scope="session")
def gospiffe():
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go on this machine")
    source = HERE / "gospiffe"
    # GOTOOLCHAIN: an older Go than go.mod wants does not fetch another one behind our back.
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -p=2", "CGO_ENABLED": "0"}
    p = subprocess.run(
        [go, "build", "-o", PROGRAM, "."], cwd=source, env=env, capture_output=True, text=True, timeout=570, check=False
    )
    if p.returncode != 0:
        pytest.skip(f"go-spiffe cannot be built here: {p.stderr[-300:]}")
    return PROGRAM


def test_go_spiffe(gospiffe, agent):
    agent.start(ttl="10s")
    out = agent.lab.run_in([gospiffe, agent.socket, TD], timeout=90, with_hosts=False)
    assert out.stdout.splitlines() == [
        f"spiffe://{TD}/first internal",
        f"spiffe://{TD}/second ",
        "authorities 1",
        "rotated",
    ], out.stdout + out.stderr


def test_go_spiffe_is_denied(gospiffe, agent):
    agent.start()
    program = agent.lab.private_dir("go") / "gospiffe"  # where another uid may read it
    shutil.copy(gospiffe, program)
    program.chmod(0o755)
    out = agent.lab.run_in([program, agent.socket, TD], uid=agent.nobody, timeout=90, with_hosts=False)
    assert out.returncode == 1 and "PermissionDenied" in out.stdout, out.stdout + out.stderr

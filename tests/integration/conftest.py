"""Fixtures: a lab for each test, the built executables, an agent, and meshes small enough to break."""

import os
import pathlib
import signal
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lib"))

from interception import cgroup2_mount  # noqa: E402
from lab import Lab, wait_for  # noqa: E402
from node import Node  # noqa: E402

# A system call that a process's list does not name ends it, wherever tests start one.
os.environ["POSTERN_SANDBOX_KILL"] = "1"

# Whoever starts the tests by nohup or in the background ignores these, and what is ignored is inherited.
for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(signo) is signal.SIG_IGN:
        signal.signal(signo, signal.default_int_handler if signo == signal.SIGINT else signal.SIG_DFL)

SANITIZER_WORDS = ("ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer")


@pytest.fixture(scope="session")
def build():
    d = pathlib.Path(os.environ.get("POSTERN_BUILD", ROOT / "build-asan")).resolve()
    assert (d / "proxy" / "postern").exists(), f"no postern in {d}: ./dev build asan"
    return d


@pytest.fixture
def lab():
    """Made before the test, removed after it; no process may have written a sanitizer report."""
    with Lab("t") as one:
        yield one
        for p in reversed(one.processes):
            p.stop()
        for p in one.processes:
            text = p.err()
            bad = [w for w in SANITIZER_WORDS if w in text]
            assert not bad, f"{p.name}: {text[-6000:]}"


@pytest.fixture
def node(lab, build):
    """An agent in a namespace of its own, and what is needed to put proxies beside it."""
    return Node(lab, build)


@pytest.fixture
def cgroup(lab):
    """A service's cgroup in a slice of its own."""
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy on this machine")
    outer = mount / f"postern-{lab.prefix}"
    inner = outer / "proxy.service"
    try:
        inner.mkdir(parents=True)
    except OSError as e:
        pytest.skip(f"cgroups are not writable here: {e}")
    yield inner
    for d in (inner, outer):
        wait_for(f"{d} to be empty", lambda d=d: not d.exists() or remove_dir(d))


def remove_dir(d):
    try:
        d.rmdir()
        return True
    except OSError:
        return False

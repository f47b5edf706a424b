"""Fixtures: a lab for each test, the built executables, an agent, and meshes small enough to break."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lib"))

from lab import Lab  # noqa: E402
from node import Node  # noqa: E402

# A system call that a process's list does not name ends it, wherever tests start one.
os.environ["POSTERN_SANDBOX_KILL"] = "1"

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

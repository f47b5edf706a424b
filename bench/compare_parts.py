"""What the programs of this directory do first: a network of their own, and as many descriptors as there may be."""

import ctypes
import os
import pathlib
import resource
import sys

import peers


def tests_python():
    """The tests' own, which has what an authority is played with; else the one that runs this."""
    own = peers.HERE.parent / "build-venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def own_network():
    """A network namespace that ends with this process: nothing listens where others listen."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET
        raise peers.Failed(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    peers.run("ip", "link", "set", "lo", "up")
    # Ports that some peers cannot change are nobody's by chance.
    settings = {
        "net/ipv4/ip_local_port_range": "10240 65000",
        "net/ipv4/ip_local_reserved_ports": "15000-15100,15900",
        "net/core/somaxconn": "4096",
    }
    for name, value in settings.items():
        pathlib.Path("/proc/sys", name).write_text(value)


def raise_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard

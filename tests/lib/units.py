"""units: what a systemd unit asks for, and a process started as systemd would: user, capabilities, system calls, sockets."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

TOOL = shutil.which("systemd-analyze")

# Between fork and exec: the filter, in which what is not listed kills. Not listed by systemd is EPERM; here nothing
# of ours may even try.
CONFINE = r"""
import ctypes, os, sys
names, argv = sys.argv[1].split(","), sys.argv[2:]
lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p
for f in (lib.seccomp_rule_add, lib.seccomp_load):
    f.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint][: 4 if f is lib.seccomp_rule_add else 1]
ctx = lib.seccomp_init(ctypes.c_uint32(0x80000000))
for name in names:
    nr = lib.seccomp_syscall_resolve_name(name.encode())
    if nr >= 0:
        assert lib.seccomp_rule_add(ctx, 0x7FFF0000, nr, 0) == 0, name
assert lib.seccomp_load(ctx) == 0
os.execv(argv[0], argv)
"""


class Unit:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.values = {}
        for line in self.path.read_text().splitlines():
            m = re.fullmatch(r"(\w+)=(.*)", line)
            if m:
                self.values.setdefault(m[1], []).append(m[2])

    def one(self, key):
        return self.values[key][-1]

    def calls(self):
        """The allowed system calls, by the order of the lines."""
        allowed = set()
        for value in self.values["SystemCallFilter"]:
            named = set().union(*(group(n) if n.startswith("@") else {n} for n in value.lstrip("~").split()))
            allowed = allowed - named if value.startswith("~") else allowed | named
        return sorted(allowed | group("@default"))

    def argv(self, argv, uid=0, gid=None):
        """argv as the unit's process: no new privileges, its bounding set, no other groups, its filter."""
        caps = [c.lower().removeprefix("cap_") for c in self.values["CapabilityBoundingSet"][-1].split()]
        bounding = ",".join(["-all"] + [f"+{c}" for c in caps])
        return [
            "setpriv", f"--reuid={uid}", f"--regid={uid if gid is None else gid}", "--clear-groups", "--no-new-privs",
            f"--bounding-set={bounding}", "--inh-caps=-all", "--", sys.executable, "-c", CONFINE,
            ",".join(self.calls()), *map(str, argv),
        ]  # fmt: skip


@functools.lru_cache
def group(name):
    out = subprocess.run([TOOL, "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^ +(@?\w[\w-]*)", out.split("\n", 1)[1], re.M)
    return frozenset().union(*(group(n) if n.startswith("@") else {n} for n in names))

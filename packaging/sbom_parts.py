#!/usr/bin/env python3
"""What the executables are made of, as rows of a C table: written at each build, from the build machine's packages.

usage: sbom_parts.py OUTPUT VERSION LINKAGE LIBRARY=VERSION...
LINKAGE is `dynamic` or `static`. The time is the commit's, or SOURCE_DATE_EPOCH: never the clock's.
"""
import os
import subprocess
import sys

# Library: the Debian package that brings it to a build, its licence (SPDX), which executables hold it.
LIBRARIES = {
    "glibc": ("libc6-dev", "LGPL-2.1-or-later", "all"),
    "libevent": ("libevent-dev", "BSD-3-Clause", "postern, postern-agent-service"),
    "openssl": ("libssl-dev", "Apache-2.0", "postern, keeper, service, kubelet, signer"),
    "nghttp2": ("libnghttp2-dev", "MIT", "postern, postern-agent-service"),
    "libyaml": ("libyaml-dev", "MIT", "postern, postern-loader"),
    "jansson": ("libjansson-dev", "MIT", "postern, service, kubelet"),
    "protobuf-c": ("libprotobuf-c-dev", "BSD-2-Clause", "postern, postern-agent-service"),
    "libcap": ("libcap-dev", "BSD-3-Clause", "all"),
    "libseccomp": ("libseccomp-dev", "LGPL-2.1-only", "all"),
    "llhttp": (("libllhttp-dev", "node-llhttp"), "MIT", "postern"),
    "nftables": ("libnftables-dev", "GPL-2.0-or-later", "postern-intercept"),
}


def run(*argv):
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return r.stdout.strip() if r.returncode == 0 else ""


def source_package(names):
    """Source package and version of the first of these that is installed; ("", "") where dpkg does not know."""
    for name in (names,) if isinstance(names, str) else names:
        got = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${source:Package} ${source:Version}\n", name).split("\n")[0].split()
        if len(got) == 3 and got[0] == "installed":
            return got[1], got[2]
    return "", ""


def quoted(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'


def distribution():
    try:
        rows = dict(line.rstrip("\n").split("=", 1) for line in open("/etc/os-release") if "=" in line)
    except OSError:
        return "", ""
    return rows.get("ID", "").strip('"'), rows.get("VERSION_ID", "").strip('"')


def main():
    output, version, linkage = sys.argv[1:4]
    versions = dict(a.split("=", 1) for a in sys.argv[4:])
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    commit = run("git", "-C", here, "rev-parse", "HEAD") or "unknown"
    at = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "-C", here, "log", "-1", "--format=%ct") or "0"
    distro, release = distribution()
    text = "/* Written by packaging/sbom_parts.py at each build. */\n"
    for name, value in (("VERSION", version), ("COMMIT", commit), ("LINKAGE", linkage), ("DISTRO", distro), ("RELEASE", release)):
        text += f"#define SBOM_{name} {quoted(value)}\n"
    text += f"#define SBOM_TIME INT64_C({int(at)})\n"
    text += "static const struct sbom_part SBOM_PARTS[] = {\n"
    for name, (package, licence, used_by) in sorted(LIBRARIES.items()):
        source, source_version = source_package(package)
        upstream = versions.get(name) or source_version.split(":")[-1].rsplit("-", 1)[0] or "unknown"
        how = "dynamic" if name == "nftables" else linkage  # no static library of it is to be had
        text += "    {" + ", ".join(quoted(v) for v in (name, upstream, licence, used_by, source, source_version, how)) + "},\n"
    text += "};\n"
    try:
        if open(output).read() == text:
            return
    except OSError:
        pass
    with open(output, "w") as f:
        f.write(text)


if __name__ == "__main__":
    main()

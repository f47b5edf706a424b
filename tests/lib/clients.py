"""clients: other people's SPIFFE clients, each built once from its lock file (tests/conformance/clients)."""

import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "tests" / "conformance" / "clients"
GO_SOURCE = ROOT / "tests" / "conformance" / "gospiffe"
ZLINT_SOURCE = ROOT / "tests" / "conformance" / "zlint"
PROTO = ROOT / "identity" / "proto" / "workloadapi.proto"
BUILT = ROOT / "build-clients"
TRIES = 3  # of what needs a network
BUILD_S = 570


class Missing(Exception):
    """A compiler that is not there, or too old: no fault of anybody's."""


def run(*argv, cwd, env=None, timeout=BUILD_S):
    return subprocess.run(
        [str(a) for a in argv], cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def get_packages(*argv, **kw):
    """What only a registry can give: tried again, then a skip; in CI a failure, so that no hole goes unseen."""
    for _ in range(TRIES):
        p = run(*argv, **kw)
        if p.returncode == 0:
            return p
    text = f"packages cannot be had ({' '.join(map(str, argv[:3]))}): {(p.stderr or p.stdout)[-600:]}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def compile_ours(*argv, **kw):
    """What is our own to get right."""
    p = run(*argv, **kw)
    assert p.returncode == 0, (p.stderr or p.stdout)[-3000:]


def tool(name, oldest, *version_argv):
    """The path of a tool that is new enough. Installers put some where no PATH leads by itself."""
    path = shutil.which(name) or shutil.which(name, path=f"/usr/local/go/bin:{pathlib.Path.home()}/.cargo/bin")
    if path is None:
        raise Missing(f"there is no {name} here")
    p = run(path, *version_argv, cwd=ROOT, timeout=60)
    m = re.search(r"(\d+)\.(\d+)", p.stdout + p.stderr)
    if m is None or (int(m[1]), int(m[2])) < oldest:
        raise Missing(f"{name} {oldest[0]}.{oldest[1]} or newer is needed, here is {(p.stdout + p.stderr).strip()}")
    return path


def build_go(out, modfile, oldest, source=GO_SOURCE, name="gospiffe"):
    go = tool("go", oldest, "version")
    # GOTOOLCHAIN: an older Go than go.mod wants does not fetch another one behind our back.
    env = {"GOTOOLCHAIN": "local", "GOFLAGS": f"-mod=readonly -p=2 -modfile={modfile}", "CGO_ENABLED": "0"}
    get_packages(go, "mod", "download", cwd=source, env=env)
    compile_ours(go, "build", "-o", out / name, ".", cwd=source, env=env)


def build_rust(out):
    cargo = tool("cargo", (1, 88), "--version")
    source = SOURCES / "rust"
    shutil.copytree(source, out / "source", dirs_exist_ok=True)
    env = {"CARGO_TARGET_DIR": str(out / "target")}
    # The lock file names its registry as this cargo does, which may have a mirror of its own.
    get_packages(cargo, "generate-lockfile", cwd=out / "source", env=env)
    lock = out / "source" / "Cargo.lock"
    registry = re.search(r'source = "(registry[^"]*)"', lock.read_text())[1]
    lock.write_text((source / "Cargo.lock.in").read_text().replace("@registry@", registry))
    get_packages(cargo, "fetch", "--locked", cwd=out / "source", env=env)
    compile_ours(cargo, "build", "--quiet", "--locked", "--offline", "-j2", cwd=out / "source", env=env)
    shutil.copy(out / "target" / "debug" / "client", out / "client")


def build_java(out):
    javac, mvn = tool("javac", (17, 0), "-version"), tool("mvn", (3, 6), "-version")
    tool("java", (17, 0), "-version")
    get_packages(mvn, "-q", "-B", "-f", SOURCES / "java" / "pom.xml", "dependency:copy-dependencies",
                 f"-DoutputDirectory={out / 'lib'}", cwd=out)  # fmt: skip
    compile_ours(javac, "--release", "17", "-cp", out / "lib" / "*", "-d", out, SOURCES / "java" / "Client.java", cwd=out)


def build_node(out):
    node, npm = tool("node", (18, 0), "--version"), tool("npm", (9, 0), "--version")
    for name in ("package.json", "package-lock.json", "client.js"):
        shutil.copy(SOURCES / "node" / name, out)
    # Other people's install scripts do not run: nothing here needs them.
    get_packages(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=out)
    compile_ours(node, "--check", "client.js", cwd=out)


def build_python(out):
    shutil.copy(SOURCES / "python" / "client.py", out)


# name: (what makes it, where its sources are, how it is called)
CLIENTS = {
    "go-2.1": (lambda o: build_go(o, "go.mod", (1, 19)), GO_SOURCE, lambda o: [o / "gospiffe", "matrix"]),
    "go-newest": (lambda o: build_go(o, "newest.mod", (1, 24)), GO_SOURCE, lambda o: [o / "gospiffe", "matrix"]),
    "python": (build_python, SOURCES / "python", lambda o: [sys.executable, o / "client.py"]),
    "rust": (build_rust, SOURCES / "rust", lambda o: [o / "client"]),
    "java": (build_java, SOURCES / "java", lambda o: ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{o}:{o}/lib/*", "Client"]),
    "node": (build_node, SOURCES / "node", lambda o: ["node", o / "client.js", PROTO]),
}

# Not clients, but built in the same way.
TOOLS = {
    "zlint": (lambda o: build_go(o, "go.mod", (1, 25), ZLINT_SOURCE, "zlint"), ZLINT_SOURCE, lambda o: [o / "zlint"]),
}


def digest(source):
    h = hashlib.sha256()
    for f in sorted(f for f in source.rglob("*") if f.is_file()):
        h.update(str(f.relative_to(source)).encode() + b"\0" + f.read_bytes())
    return h.hexdigest()


def built(name):
    """The directory of a client or tool, built unless it is already; skips where it cannot be."""
    make, source, _ = (CLIENTS | TOOLS)[name]
    out, want = BUILT / name, digest(source)
    out.mkdir(parents=True, exist_ok=True)
    with open(BUILT / f"{name}.lock", "w") as lock:  # tests run in parallel, in processes of their own
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = out / "stamp"
        if not stamp.exists() or stamp.read_text() != want:
            try:
                make(out)
            except Missing as e:
                pytest.skip(str(e))
            stamp.write_text(want)
    return out


def argv(name, *rest):
    return [*(CLIENTS | TOOLS)[name][2](built(name)), *rest]


def events(text):
    """What a client has said so far; a line that is not whole yet is left."""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith("{")]

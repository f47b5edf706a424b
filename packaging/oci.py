#!/usr/bin/python3
"""An OCI image of the data plane, made from two builds and nothing else: no daemon, no base image, one layer.

usage: oci.py --static BUILD --dynamic BUILD --output DIRECTORY [--tar FILE]

`postern` and what it starts come from the static build; `postern-intercept`, which needs a library that exists as a
shared one alone, comes from the other with the libraries that it is linked with: nothing else has to be built there.
What only a node's agent needs is not in it. The same builds give the same bytes: names are sorted, the time is the
commit's, nothing is owned by anybody.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile

UID = 65532
LIMIT = 15 * 1000 * 1000
AGENT_ONLY = {
    "postern-agent-service",
    "postern-attestor",
    "postern-keeper",
    "postern-kubelet",
    "postern-loader",
}
FROM_DYNAMIC = {"postern-intercept": "proxy/intercept/postern-intercept"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Whose code is inside `postern`: their licences go along.
NOTICES = (
    "libevent-dev",
    "libssl-dev",
    "libnghttp2-dev",
    "libyaml-dev",
    "libjansson-dev",
    "libprotobuf-c-dev",
    "libcap-dev",
    "libseccomp-dev",
    "libllhttp-dev",
    "node-llhttp",
    "libc6-dev",
)
SHARED_NOTICES = ("libnftables1", "libnftnl11", "libmnl0", "libxtables12", "libgmp10", "libedit2")
HERE = pathlib.Path(__file__).resolve().parent.parent


def run(*argv, **kw):
    return subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.PIPE, text=True, **kw).stdout


def commit():
    """Hash and time; SOURCE_DATE_EPOCH counts more than git."""
    shown = run("git", "-C", HERE, "log", "-1", "--format=%H %ct").split()
    return shown[0], int(os.environ.get("SOURCE_DATE_EPOCH") or shown[1])


def install(build, to):
    run("meson", "install", "-C", build, "--no-rebuild", "--destdir", to)


def libraries(program):
    """The shared libraries of a program, and the loader: {path in the image: path here}."""
    found = {}
    for line in run("ldd", program).splitlines():
        for path in (w for w in line.split() if w.startswith("/")):
            found[path] = os.path.realpath(path)
    return found


class Layer:
    """Files by their path in the image, and links as text; directories come by themselves."""

    def __init__(self, time):
        self.time = time
        self.entries = {}

    def add(self, path, data, mode):
        for parent in list(pathlib.PurePosixPath(path).parents)[:-1]:
            self.entries.setdefault(str(parent), (None, 0o755))
        self.entries[path] = (data, mode)

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as t:
            for path, (data, mode) in sorted(self.entries.items()):
                info = tarfile.TarInfo(path.lstrip("/"))
                info.mode = mode
                info.mtime = self.time
                if isinstance(data, str):
                    info.type, info.linkname = tarfile.SYMTYPE, data
                    t.addfile(info)
                    continue
                info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
                info.size = 0 if data is None else len(data)
                t.addfile(info, None if data is None else io.BytesIO(data))
        return out.getvalue()


def stripped(program):
    with tempfile.NamedTemporaryFile() as f:
        run("strip", "--strip-all", "-o", f.name, program)
        return pathlib.Path(f.name).read_bytes()


def fill(layer, static, dynamic):
    binaries = {p.name: p for p in static.rglob("postern*") if p.is_file() and os.access(p, os.X_OK)}
    layer.add("/usr/bin/postern", stripped(binaries.pop("postern")), 0o755)
    for name, program in sorted(binaries.items()):
        if name not in AGENT_ONLY:
            layer.add(f"/usr/libexec/postern/{name}", stripped(program), 0o755)
    for name in ("postern-rotate-probe", "postern-key-holder", "postern-heir"):
        layer.add(f"/usr/libexec/postern/{name}", "../../bin/postern", 0o777)
    for name, program in sorted((name, dynamic / path) for name, path in FROM_DYNAMIC.items()):
        layer.add(f"/usr/libexec/postern/{name}", stripped(program), 0o755)
        for path, source in libraries(program).items():
            layer.add(path, pathlib.Path(source).read_bytes(), 0o755)
    layer.add("/etc/passwd", f"root:x:0:0::/:\npostern:x:{UID}:{UID}::/:\n".encode(), 0o644)
    layer.add("/etc/group", f"root:x:0:\npostern:x:{UID}:\n".encode(), 0o644)
    layer.add("/usr/share/doc/postern/LICENSE", (HERE / "LICENSE").read_bytes(), 0o644)
    for kind in ("spdx", "cyclonedx"):
        text = run(static / "usr/bin/postern", "version", f"--sbom={kind}")
        layer.add(f"/usr/share/doc/postern/sbom.{kind}.json", text.encode(), 0o644)
    for package in NOTICES + SHARED_NOTICES:
        notice = pathlib.Path("/usr/share/doc") / package / "copyright"
        if notice.exists():
            layer.add(f"/usr/share/doc/postern/licenses/{package}", notice.read_bytes(), 0o644)


class Blobs:
    def __init__(self, directory):
        self.directory = directory / "blobs" / "sha256"
        self.directory.mkdir(parents=True)

    def put(self, data, kind, **more):
        digest = hashlib.sha256(data).hexdigest()
        (self.directory / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}


def as_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write_layout(directory, layer, version, revision, created, time):
    blobs = Blobs(directory)
    tar = layer.tar()
    packed = gzip.compress(tar, 9, mtime=0)
    labels = {
        "org.opencontainers.image.title": "postern",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.description": "mutual-TLS sidecar proxy, gateway and certificate rotation daemon",
    }
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {
            "User": f"{UID}:{UID}",
            "Entrypoint": ["/usr/bin/postern"],
            "Cmd": ["help"],
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
        "history": [{"created": created, "created_by": "packaging/oci.py"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blobs.put(as_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [blobs.put(packed, "application/vnd.oci.image.layer.v1.tar+gzip")],
        "annotations": labels,
    }
    row = blobs.put(
        as_json(manifest),
        manifest["mediaType"],
        platform={"architecture": architecture, "os": "linux"},
        annotations={"org.opencontainers.image.ref.name": version, "io.containerd.image.name": f"localhost/postern:{version}"},
    )
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [row]}
    (directory / "index.json").write_bytes(as_json(index))
    (directory / "oci-layout").write_bytes(as_json({"imageLayoutVersion": "1.0.0"}))
    for p in directory.rglob("*"):
        os.utime(p, (time, time))
    return row["digest"], len(tar), len(packed)


def pack(directory, file, time):
    """The layout as one file, as tools load it."""
    layer = Layer(time)
    for p in directory.rglob("*"):
        if p.is_file():
            layer.add("/" + str(p.relative_to(directory)), p.read_bytes(), 0o644)
    pathlib.Path(file).write_bytes(layer.tar())


def main():
    p = argparse.ArgumentParser(description="An OCI image of the data plane.")
    p.add_argument("--static", required=True, help="a build with -Dstatic=true")
    p.add_argument("--dynamic", required=True, type=pathlib.Path, help="a build without, of postern-intercept at least")
    p.add_argument("--output", required=True, type=pathlib.Path, help="the layout's directory; it is made anew")
    p.add_argument("--tar", help="the same as one file")
    args = p.parse_args()
    revision, time = commit()
    created = run("date", "-u", "-d", f"@{time}", "+%Y-%m-%dT%H:%M:%SZ").strip()
    layer = Layer(time)
    with tempfile.TemporaryDirectory() as tmp:
        static = pathlib.Path(tmp, "static")
        install(args.static, static)
        version = run(static / "usr/bin/postern", "version").split()[1]
        fill(layer, static, args.dynamic)
    if args.output.exists():
        if not (args.output / "oci-layout").exists():
            sys.exit(f"oci: {args.output} is there and is no OCI layout")
        shutil.rmtree(args.output)
    args.output.mkdir(parents=True)
    digest, unpacked, packed = write_layout(args.output, layer, version, revision, created, time)
    if args.tar:
        pack(args.output, args.tar, time)
    print(f"{args.output}: {digest}, one layer, {packed / 1e6:.1f} MB packed, {unpacked / 1e6:.1f} MB unpacked")
    if unpacked > LIMIT:
        sys.exit(f"oci: the image is larger than {LIMIT / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

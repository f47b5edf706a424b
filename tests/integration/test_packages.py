"""What is shipped: the bill of materials, the image, and that a build can be repeated. docs/packages.md."""

import contextlib
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile

import pytest
from containers import Containerd, forbidden, kubelet_cgroup, new_container_id, new_pod_uid
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from lab import LabError, run, wait_for
from node import ALLOW_CLIENT, TD, spiffe_id
from servers import TcpServer, echo
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = {"glibc", "jansson", "libcap", "libevent", "libseccomp", "libyaml", "llhttp", "nftables", "nghttp2", "openssl", "protobuf-c"}


def sbom(postern, kind):
    return json.loads(run(postern, "version", f"--sbom={kind}").stdout)


# --- the bill of materials ---


def test_spdx_is_valid_and_names_every_library(node):
    doc = sbom(node.postern, "spdx")
    assert validate_full_spdx_document(JsonLikeDictParser().parse(doc)) == []
    assert {p["name"] for p in doc["packages"]} == PARTS | {"postern"}
    commit = run("git", "-C", ROOT, "rev-parse", "HEAD").stdout.strip()
    postern = next(p for p in doc["packages"] if p["name"] == "postern")
    assert len(postern["sourceInfo"]) == len(f"git commit {commit}")
    assert json.loads(run(node.postern, "version", "--sbom").stdout) == doc


def test_cyclonedx_is_valid_and_says_the_same(node):
    text = run(node.postern, "version", "--sbom=cyclonedx").stdout
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    doc = json.loads(text)
    versions = {c["name"]: c["version"] for c in doc["components"]}
    assert versions == {p["name"]: p["versionInfo"] for p in sbom(node.postern, "spdx")["packages"] if p["name"] != "postern"}
    shown = run(node.postern, "version").stdout
    assert f"OpenSSL {versions['openssl']}" in shown
    assert f"libevent {versions['libevent']}" in shown
    assert f"nghttp2 {versions['nghttp2']}" in shown


def test_the_bill_names_each_library_that_the_executables_are_linked_with(node):
    """What ldd shows and the bill does not would be a hole in it."""
    sonames = {
        "libevent_core-2.1": "libevent", "libssl": "openssl", "libcrypto": "openssl", "libnghttp2": "nghttp2", "libyaml-0": "libyaml",
        "libjansson": "jansson", "libprotobuf-c": "protobuf-c", "libcap": "libcap", "libseccomp": "libseccomp", "libllhttp": "llhttp",
        "libnftables": "nftables", "libc": "glibc", "libm": "glibc", "libresolv": "glibc", "libdl": "glibc", "libpthread": "glibc",
    }  # fmt: skip
    compiler = {"libasan", "libubsan", "libgcc_s", "libstdc++", "libtsan"}
    for program in [node.postern, *sorted(pathlib.Path(node.build, "libexec").glob("postern-*"))]:
        # Direct ones: what those bring with them is the distribution's to say.
        for line in run("readelf", "-d", program).stdout.splitlines():
            if "(NEEDED)" in line:
                name = line.split("[")[1].split(".so")[0]
                assert name in sonames or name in compiler or name.startswith("ld-linux"), (program, name)
                assert name not in sonames or sonames[name] in PARTS


def test_an_unknown_format_is_refused(node):
    p = run(node.postern, "version", "--sbom=swid", check=False)
    assert p.returncode == 2 and "spdx or cyclonedx" in p.stderr and p.stdout == ""


# --- the image ---


@pytest.fixture(scope="module")
def image():
    p = subprocess.run([ROOT / "dev", "package", "oci"], cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
    assert p.returncode == 0, p.stdout + p.stderr
    return ROOT / "build-package" / "oci", ROOT / "build-package" / "postern-oci.tar"


def blob(layout, descriptor):
    data = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == descriptor["digest"].removeprefix("sha256:")
    assert len(data) == descriptor["size"]
    return data


def test_the_image(image, node):
    """One layer, not root, under 15 MB unpacked, nothing in it that the data plane does not need; and it runs."""
    layout, file = image
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(layout, index["manifests"][0]))
    config = json.loads(blob(layout, manifest["config"]))
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["/usr/bin/postern"]
    (layer,) = manifest["layers"]
    packed = blob(layout, layer)
    with tarfile.open(fileobj=io.BytesIO(packed)) as t:
        members = {m.name: m for m in t.getmembers()}
        postern = t.extractfile(members["usr/bin/postern"]).read()
        notices = json.loads(t.extractfile(members["usr/share/doc/postern/sbom.spdx.json"]).read())
    assert sum(m.size for m in members.values()) < 15_000_000
    assert all(m.uid == 0 and m.gid == 0 and (m.issym() or not m.mode & 0o7022) for m in members.values())
    assert not any("keeper" in n or "agent-service" in n or n.endswith("/sh") for n in members)
    helpers = {n.split("/")[-1] for n in members if n.startswith("usr/libexec/postern/")}
    assert helpers == {
        "postern-heir", "postern-intercept", "postern-key-holder", "postern-resolver", "postern-rotate-probe",
        "postern-rotate-run",
    }  # fmt: skip
    assert {r["relationshipType"] for r in notices["relationships"]} == {"DESCRIBES", "STATIC_LINK", "DYNAMIC_LINK"}
    # Position independent, and linked with nothing that is loaded.
    program = pathlib.Path(node.lab.dir) / "postern-of-the-image"
    program.write_bytes(postern)
    kinds = run("readelf", "-h", "-l", program).stdout
    assert "DYN (" in kinds and "Requesting program interpreter" not in kinds
    why_not = forbidden()
    if why_not is not None:
        pytest.skip(f"looked at, but not run: the kernel forbids it: {why_not}")
    run_image(file, node)


@contextlib.contextmanager
def told(story):
    """With what the processes said, when a condition does not come."""
    try:
        yield
    except LabError as e:
        raise LabError(f"{e}\n{story()}") from e


def run_image(file, node):
    """A sidecar of it in front of a server: no writable directory, the image's uid; traffic goes through."""
    lab = node.lab
    container = new_container_id()
    selectors = f'["container:id:{container}", "unix:uid:65532"]'
    node.write_entries(extra=f"  - id: image\n    spiffe_id: {spiffe_id('image')}\n    selectors: {selectors}\n")
    node.start_agent()
    conf = lab.private_dir("image-conf")
    (conf / "policy.yaml").write_text(ALLOW_CLIENT.format(td=TD))
    (conf / "proxy.yaml").write_text(
        "kind: Proxy\nlevel: 1\nidentity: {socket: unix:/agent/agent.sock}\npolicy: policy.yaml\nlisteners:\n"
        "  - {name: in, direction: inbound, capture: explicit, address: 127.0.0.1:8443, to: 127.0.0.1:8080}\n"
    )
    node.client_side(9000, 8443, expect=("image",))
    runtime = Containerd(lab, node.postern)
    try:
        runtime.ctr("image", "import", file)
        name = runtime.ctr("image", "ls", "-q").stdout.split()[0]
        runtime.ids.append(container)
        cgroup = kubelet_cgroup(new_pod_uid(), container)
        runtime.cgroups.append(cgroup)
        runtime.ctr(
            "run", "--detach", "--read-only", "--cgroup", cgroup, "--log-uri", f"file://{runtime.dir}/{container}.log",
            "--with-ns", f"network:/run/netns/{node.netns}",
            "--mount", f"type=bind,src={conf},dst=/conf,options=rbind:ro",
            "--mount", f"type=bind,src={node.socket.parent},dst=/agent,options=rbind:ro",
            name, container, "/usr/bin/postern", "proxy", "/conf/proxy.yaml",
        )  # fmt: skip
        with told(lambda: runtime.log(container) + node.agent.err()[-3000:]):
            wait_for("the sidecar of the image to be ready", lambda: '"ready"' in runtime.log(container), 20)
        with TcpServer(node.netns, echo, port=8080):
            p = lab.run_in(["nc", "-N", "-w", "10", "127.0.0.1", "9000"], netns=node.netns, input="through the image\n")
        assert p.stdout == "through the image\n", runtime.log(container)
        status = pathlib.Path(f"/proc/{runtime.pid(container)}/status").read_text()
        assert "\nUid:\t65532\t65532\t65532\t65532\n" in status
        assert "\nCapEff:\t0000000000000000\n" in status and "\nSeccomp:\t2\n" in status
    finally:
        runtime.close()


# --- the build, again ---


def test_two_builds_give_the_same_bytes():
    p = subprocess.run([ROOT / "packaging" / "reproduce", "--main"], capture_output=True, text=True, timeout=1700, check=False)
    assert p.returncode == 0, p.stdout + p.stderr
    names = {line.split()[-1] for line in p.stdout.splitlines()[:-1]}
    assert names == {"proxy/postern", "identity/keeper/postern-keeper"}

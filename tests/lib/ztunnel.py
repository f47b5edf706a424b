"""ztunnel: Istio's node proxy as a peer: one for each workload (its dedicated mode), told of the mesh by a file.

POSTERN_ZTUNNEL names the executable; nobody packages it. Its certificates come from a server here that speaks Istio's
CA protocol, below the root that the agent of the same test has its authority from, so that both stand in one mesh.
A ztunnel's ports are fixed (15008 and others): each lives in a network namespace of its own. Clients reach its
outbound side by SOCKS.
"""

import concurrent.futures
import json
import os
import re
import socket
import struct

import grpc
from cryptography import x509
from lab import in_netns, wait_for
from pki import Ca
from wirepb import decode, message, text

BINARY = os.environ.get("POSTERN_ZTUNNEL")
HBONE_PORT, SOCKS_PORT, READY_PORT = 15008, 15080, 15021


class IstioCa:
    """istio.v1.auth.IstioCertificateService: signs what a ztunnel asks for; who asks is not its business here."""

    def __init__(self, root, netns):
        self.root, self.signed = root, []
        server_leaf = root.leaf(dns=["localhost"], ips=["127.0.0.1"])
        credentials = grpc.ssl_server_credentials([(server_leaf.key_pem(), server_leaf.cert_pem)])
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        method = grpc.unary_unary_rpc_method_handler(self._create)  # bytes in, bytes out
        handlers = {"CreateCertificate": method}
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("istio.v1.auth.IstioCertificateService", handlers)]
        )
        with in_netns(netns):
            self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()

    def _create(self, request, _context):
        csr = x509.load_pem_x509_csr(text(decode(request), 1).encode())
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        self.signed.append(uris)
        leaf = self.root.svid(uris[0], public_key=csr.public_key())
        return message(f1=[leaf.cert_pem, self.root.pem])

    def close(self):
        self.server.stop(None).wait()


def workload(name, address, trust_domain, protocol="HBONE", policies=()):
    """One row of a ztunnel's mesh; its identity is spiffe://TD/ns/default/sa/NAME. Policies are named there too."""
    return {
        "uid": f"cluster//v1/Pod/default/{name}",
        "name": name,
        "namespace": "default",
        "serviceAccount": name,
        "trustDomain": trust_domain,
        "workloadIps": [address] if isinstance(address, str) else list(address),
        "protocol": protocol,
        "node": "local",
        "network": "",
        "services": {},
        "authorizationPolicies": list(policies),
    }


def identity(name, trust_domain):
    return f"spiffe://{trust_domain}/ns/default/sa/{name}"


def allow(name, principals, ports=()):
    """An AuthorizationPolicy of the namespace, in the form of a ztunnel's file."""
    match = {"principals": [{"Exact": p.removeprefix("spiffe://")} for p in principals]}
    if ports:
        match["destinationPorts"] = list(ports)
    return {"name": name, "namespace": "default", "scope": "Namespace", "action": "Allow", "dryRun": False,
            "rules": [[[match]]]}  # fmt: skip


class Ztunnel:
    def __init__(self, lab, root, name, netns, mesh, policies=(), env=()):
        """`mesh`: rows of workload(), among them one of this name. Ready when this returns."""
        self.lab, self.name, self.netns = lab, name, netns
        self.ca = IstioCa(root, netns)
        files = lab.private_dir(f"ztunnel-{name}")
        (files / "root.pem").write_bytes(root.pem)
        text_ = json.dumps({"workloads": list(mesh), "policies": list(policies)})
        # Its matches are YAML with tags, which JSON hasn't.
        (files / "mesh.yaml").write_text(re.sub(r'{"Exact": ("[^"]*")}', r"!Exact \1", text_))
        variables = {
            **os.environ,
            "PROXY_MODE": "dedicated",
            "PROXY_WORKLOAD_INFO": f"default/{name}/{name}",
            "LOCAL_XDS_PATH": str(files / "mesh.yaml"),
            "XDS_ADDRESS": "",
            "CA_ADDRESS": f"https://127.0.0.1:{self.ca.port}",
            "CA_ROOT_CA": str(files / "root.pem"),
            "NODE_NAME": "local",
            "ENABLE_ORIG_SRC": "false",  # the client's address on the workload's side needs routes that are not here
            "UNSTABLE_ENABLE_SOCKS5": "true",
            "ZTUNNEL_WORKER_THREADS": "2",
            "RUST_LOG": "info",
            **dict(env),
        }
        self.process = lab.start(f"ztunnel-{name}", [BINARY, "proxy", "ztunnel"], netns=netns, env=variables)
        wait_for(f"ztunnel {name}", self._ready, 30)

    def _ready(self):
        assert self.process.alive(), self.process.err()[-3000:] + self.process.out()[-3000:]
        with in_netns(self.netns):
            with socket.create_connection(("127.0.0.1", READY_PORT), 1) as s:
                s.sendall(b"GET /healthz/ready HTTP/1.0\r\n\r\n")
                return b" 200 " in s.recv(4096)

    def log(self):
        return self.process.out() + self.process.err()

    def connect(self, address, port, timeout=20.0):
        """Through its outbound side, as a program in its pod would come out of it. ztunnel says yes before it knows."""
        with in_netns(self.netns):
            s = socket.create_connection(("127.0.0.1", SOCKS_PORT), timeout)
        s.sendall(b"\5\1\0")
        assert s.recv(2) == b"\5\0"
        s.sendall(b"\5\1\0\1" + socket.inet_aton(address) + struct.pack(">H", port))
        answer = s.recv(10, socket.MSG_WAITALL)
        assert answer[:2] == b"\5\0", answer
        return s

    def close(self):
        self.process.stop()
        self.ca.close()


def make_authority(node, trust_domain):
    """A root, and below it the files of the agent's authority; the extra text of the agent's file."""
    root = Ca("mesh root", uri=f"spiffe://{trust_domain}")
    own = Ca("agent", root, uri=f"spiffe://{trust_domain}", path_length=1)
    for name, data in (("ca.pem", own.cert), ("bundle.pem", root.cert)):
        (node.conf / name).write_bytes(_pem(data))
    key = node.conf / "ca.key"
    key.write_bytes(own.key_pem)
    key.chmod(0o600)
    return root


def _pem(cert):
    from cryptography.hazmat.primitives.serialization import Encoding

    return cert.public_bytes(Encoding.PEM)


DISK = "ca:\n  source: disk\n  disk: {cert_file: ca.pem, key_file: ca.key, bundle_file: bundle.pem}\n  key_at_rest: plain\n"

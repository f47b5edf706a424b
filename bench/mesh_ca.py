"""The authority that a ztunnel asks for its certificate, over gRPC: istio.v1.auth.IstioCertificateService.

Run by bench/mesh_peers.py with the tests' Python (./dev makes it), beside each ztunnel, in its network namespace:
  mesh_ca.py DIRECTORY PORT
DIRECTORY holds what peers.make_certificates made. Signs whatever is asked for, below the same intermediate as the
certificates of the other pairs.
"""

import concurrent.futures
import datetime
import ipaddress
import pathlib
import sys
import threading

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "lib"))
from wirepb import decode, message, text  # noqa: E402


class Authority:
    def __init__(self, d):
        self.root_pem, self.node_pem = (d / "root.crt").read_bytes(), (d / "node.crt").read_bytes()
        self.node = x509.load_pem_x509_certificate(self.node_pem)
        self.key = load_pem_private_key((d / "node.key").read_bytes(), None)

    def sign(self, public_key, names):
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        purposes = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.node.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=20))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return cert.public_bytes(Encoding.PEM)

    def create(self, request, _context):
        csr = x509.load_pem_x509_csr(text(decode(request), 1).encode())
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        leaf = self.sign(csr.public_key(), list(names))
        return message(f1=[leaf, self.node_pem, self.root_pem])


def main():
    authority, port = Authority(pathlib.Path(sys.argv[1])), int(sys.argv[2])
    key = ec.generate_private_key(ec.SECP256R1())
    own = authority.sign(key.public_key(), [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    handlers = {"CreateCertificate": grpc.unary_unary_rpc_method_handler(authority.create)}  # bytes in, bytes out
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("istio.v1.auth.IstioCertificateService", handlers)])
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(pem, own + authority.node_pem)]))
    server.start()
    threading.Event().wait()


main()

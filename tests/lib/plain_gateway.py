"""plain_gateway: gateways with certificates from files, in a namespace of their own, and a small PKI of openssl's."""

from lab import run
from node import Proxy


class Pki:
    """One ordinary CA; certificates with names."""

    def __init__(self, directory, name="ca"):
        self.dir = directory
        self.ca = directory / f"{name}.pem"
        self.ca_key = directory / f"{name}-key.pem"
        run(
            *("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2").split(),
            "-keyout", self.ca_key, "-out", self.ca, "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:true", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(self, name, *dns, cn=None):
        """(certificate, key); their paths are what is returned."""
        cert, key, csr = (self.dir / f"{name}{s}" for s in (".pem", "-key.pem", ".csr"))
        ext = self.dir / f"{name}.ext"
        san = "subjectAltName=" + ",".join(f"DNS:{d}" for d in dns) + "\n" if dns else ""
        ext.write_text(san + "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
        run(
            *("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes").split(),
            "-keyout", key, "-out", csr, "-subj", f"/CN={cn or name}",
        )  # fmt: skip
        run(
            *("openssl x509 -req -days 1 -CAcreateserial").split(),
            "-in", csr, "-CA", self.ca, "-CAkey", self.ca_key, "-out", cert, "-extfile", ext,
        )  # fmt: skip
        key.chmod(0o600)
        return cert, key


class Gateways:
    """Starts gateways; every one has an admin socket, and what the test says."""

    def __init__(self, lab, build):
        self.lab, self.build = lab, build
        self.netns = lab.netns("gw")
        self.conf = lab.private_dir("conf")
        self.pki = Pki(self.conf)
        self.n = 0

    def start(self, text, wait=True, with_hosts=False):
        """text: the file from `listeners` on, credentials and trust included."""
        self.n += 1
        tag = f"gateway{self.n}"
        admin = self.lab.private_dir(f"admin-{tag}") / "admin.sock"
        conf = self.conf / f"{tag}.yaml"
        conf.write_text(f"kind: Gateway\nlevel: 1\nname: {tag}\nadmin: {{socket: {admin}, allow_uids: [0]}}\n{text}")
        argv = [self.build / "proxy" / "postern", "gateway", conf]
        process = self.lab.start(tag, argv, netns=self.netns, with_hosts=with_hosts)
        gateway = Proxy(None, tag, process, admin, conf)
        if wait:
            gateway.wait_event("started")
        return gateway

    def curl(self, *argv, **kw):
        return self.lab.run_in(["curl", "-sS", "--max-time", "15", *argv], self.netns, with_hosts=False, **kw)

    def run(self, *argv, **kw):
        return self.lab.run_in(argv, self.netns, with_hosts=False, **kw)

"""rotating: a rotation daemon as root with an agent that knows root, for what follows from a change."""

import hashlib
import json
import os
import signal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lab import admin_ask, log_events, wait_for

TTL = "1h"


class Rotating:
    def __init__(self, node, output, extra="", name="rot"):
        self.node = node
        self.dir = node.lab.private_dir(name)
        self.files = self.dir / "out"
        self.admin = self.dir / "admin.sock"
        self.conf = self.dir / "rotate.yaml"
        self.name = name
        self.extra = extra
        self.process = None
        self.write(output)

    def write(self, output):
        """output: lines of a YAML mapping, at the indentation of two."""
        self.conf.write_text(
            f"kind: Rotate\nlevel: 1\nidentity: {{socket: 'unix:{self.node.socket}'}}\n"
            f"admin: {{socket: {self.admin}}}\noutputs:\n- name: web\n  directory: {self.files}\n"
            + output.replace("DIR", str(self.dir)) + self.extra
        )
        self.conf.chmod(0o644)

    def argv(self, *child):
        return [self.node.postern, "rotate", self.conf, *(["--", *child] if child else [])]

    def start(self, *child, **kw):
        self.process = self.node.lab.start(self.name, self.argv(*child), **kw)
        return self

    def run(self, *argv, timeout=60):
        return self.node.lab.run_in([self.node.postern, "rotate", *argv, self.conf], timeout=timeout)

    def events(self, event, **want):
        return log_events(self.process.err(), event, **want)

    def wait_event(self, event, timeout=30, at_least=1, **want):
        def seen():
            found = self.events(event, **want)
            assert self.process.alive() or len(found) >= at_least, self.process.err()[-3000:]
            return len(found) >= at_least and found

        return wait_for(f"{event} {want}", seen, timeout)[-1]

    def status(self):
        return json.loads(admin_ask(self.admin, "status"))["outputs"][0]

    def metrics(self):
        return admin_ask(self.admin, "metrics")

    def generation(self):
        return int(os.readlink(self.files / "..data").split("-")[1])

    def renew(self):
        """Another generation; its number."""
        before = self.generation()
        self.process.send_signal(signal.SIGHUP)
        return wait_for("another generation", lambda: self.generation() > before and self.generation())

    def leaf(self, name="tls.crt"):
        pem = (self.files / name).read_bytes()
        return hashlib.sha256(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)).hexdigest()


def root_agent(node, ttl=TTL, **kw):
    node.write_entries(ttl, uids={"root": 0, "client": 48101})
    node.start_agent(**kw)

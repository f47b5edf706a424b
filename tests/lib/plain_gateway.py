"""plain_gateway: gateways with certificates from files, in a namespace of their own."""

from gateway import Ca
from node import Proxy


class Gateways:
    """Starts gateways; every one has an admin socket, and what the test says."""

    def __init__(self, lab, build):
        self.lab, self.build = lab, build
        self.netns = lab.netns("gw")
        self.conf = lab.private_dir("conf")
        self.pki = Ca(self.conf)
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

"""fake_kubelet: a kubelet's /pods over TLS, as a real one answers and as none should.

It serves what `pods` holds (PodList items; pod() makes one in the shape that was recorded from a real
kubelet) to whoever shows the token or a client certificate. `mode` is a function of the handler that
takes the answer into its own hands.
"""

import copy
import json
import pathlib
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lab import ROOT, run

RECORDED = ROOT / "tests" / "data" / "kubernetes" / "kubelet-pods.json"


def pod(uid, ns="shop", name="web-1", sa="default", labels=None, node="vm", containers=(), init=()):
    """Containers are (name, id, image, image id); an id of None: the kubelet does not know it yet."""
    one = copy.deepcopy(json.loads(RECORDED.read_text())["items"][0])
    one["metadata"].update({"uid": uid, "namespace": ns, "name": name, "labels": labels or {"app": "web"}})
    one["spec"].update({"serviceAccountName": sa, "serviceAccount": sa, "nodeName": node})

    def status(c):
        cname, cid, image, image_id = c
        s = {"name": cname, "image": image, "imageID": image_id, "ready": cid is not None, "restartCount": 0}
        if cid is not None:
            s["containerID"] = f"containerd://{cid}"
            s["state"] = {"running": {"startedAt": "2026-11-23T22:56:49Z"}}
        return s

    one["status"]["containerStatuses"] = [status(c) for c in containers]
    one["status"]["initContainerStatuses"] = [status(c) for c in init]
    return one


class Authority:
    """A CA with certificates below it, by openssl(1)."""

    def __init__(self, directory, name="kubelet-ca"):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.crt, self.key = self.dir / f"{name}.crt", self.dir / f"{name}.key"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", self.key, "-out", self.crt, "-days", "2", "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE")  # fmt: skip

    def issue(self, name, san=None, usage="serverAuth"):
        crt, key, csr, ext = (self.dir / f"{name}.{e}" for e in ("crt", "key", "csr", "ext"))
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", csr, "-subj", f"/CN={name}")  # fmt: skip
        ext.write_text((f"subjectAltName={san}\n" if san else "") + f"extendedKeyUsage={usage}\n")
        run("openssl", "x509", "-req", "-in", csr, "-CA", self.crt, "-CAkey", self.key, "-CAcreateserial",
            "-days", "1", "-extfile", ext, "-out", crt)  # fmt: skip
        return crt, key


class FakeKubelet:
    def __init__(self, directory, token="secret-1", san="IP:127.0.0.1", tls=True, client_ca=None):
        self.authority = Authority(directory)
        self.token = token
        self.pods = []
        self.mode = None
        self.asked = []  # (path, authorization, common name of the client) of each request
        self.changed = threading.Condition()
        kubelet = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self):
                kubelet.answer(self)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # whoever goes away in the middle is the test's own affair

            def finish_request(self, request, client_address):
                if tls:
                    request.settimeout(10)
                    request = context.wrap_socket(request, server_side=True)
                super().finish_request(request, client_address)

        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.authority.issue("kubelet", san))
            if client_ca is not None:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_OPTIONAL
        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def body(self):
        with self.changed:
            return json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.pods}).encode()

    def set_pods(self, *pods):
        with self.changed:
            self.pods = list(pods)

    def answer(self, handler):
        cert = handler.connection.getpeercert() if hasattr(handler.connection, "getpeercert") else None
        name = dict(rdn[0] for rdn in cert["subject"]).get("commonName") if cert else None
        auth = handler.headers.get("Authorization")
        with self.changed:
            self.asked.append((handler.path, auth, name))
            self.changed.notify_all()
        if self.mode is not None:
            self.mode(handler)
        elif handler.path != "/pods":
            self.send(handler, 404, b"404 page not found")
        elif self.token is not None and auth != f"Bearer {self.token}" and name is None:
            self.send(handler, 401, b"Unauthorized")
        else:
            self.send(handler, 200, self.body())

    def send(self, handler, status, body, chunked=False):
        handler.send_response(status)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for i in range(0, len(body), 1000):
                piece = body[i : i + 1000]
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        handler.close_connection = True

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

"""hbone: HBONE by hand, both ends, so that a test chooses every header, frame and silence.

h2 checks what the other side sends (its broken HTTP/2 raises); what goes out is not checked. One connection is one
thread's. Time only bounds waiting.
"""

import contextlib
import socket
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from lab import PATIENCE_S

PORT = 15008
WINDOW = 1 << 20  # of a stream, as we say
REFUSED_STREAM, PROTOCOL_ERROR, CANCEL = 7, 1, 8


class Ended(Exception):
    """The other side ended the connection, or its TLS."""


def context(server, leaf, root_pem, directory, name, alpn=("h2",), version=ssl.TLSVersion.TLSv1_3):
    """TLS with a certificate of pki.py; who the other side is, is the test's to look at: no host name counts here."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.load_verify_locations(cadata=root_pem.decode())
    ctx.verify_mode = ssl.CERT_REQUIRED
    ctx.minimum_version = ctx.maximum_version = version
    if leaf is not None:
        ctx.load_cert_chain(*leaf.write(directory, name))
    if alpn:
        ctx.set_alpn_protocols(list(alpn))
    return ctx


def peer_uri(sock):
    names = dict(sock.getpeercert()).get("subjectAltName", ())
    return [value for kind, value in names if kind == "URI"]


class Stream:
    def __init__(self, sid):
        self.id, self.headers, self.data = sid, None, b""
        self.ended, self.reset = False, None

    @property
    def status(self):
        return dict(self.headers)[":status"] if self.headers else None

    @property
    def over(self):
        return self.ended or self.reset is not None


class Link:
    """One connection: either side."""

    def __init__(self, sock, client, timeout=PATIENCE_S):
        self.sock, self.timeout, self.client = sock, timeout, client
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,  # CONNECT without :scheme and :path, which it takes for wrong
                normalize_inbound_headers=False,
            )
        )
        self.streams, self.requests = {}, []
        self.settings, self.pongs, self.goaway, self.hold = {}, [], None, False

    def start(self, **settings):
        # Wider windows than HTTP/2's own 64 KiB, so that a test of bytes is not one of round trips.
        codes = h2.settings.SettingCodes
        said = {codes.INITIAL_WINDOW_SIZE: WINDOW, codes.MAX_FRAME_SIZE: 1 << 18, codes.MAX_CONCURRENT_STREAMS: 200}
        said.update({codes[name]: value for name, value in settings.items()})
        self.h2.local_settings = h2.settings.Settings(client=self.client, initial_values=said)
        self.h2.max_inbound_frame_size = 1 << 18
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(16 * 1024 * 1024)
        self.flush()
        return self

    def flush(self):
        try:
            self.sock.sendall(self.h2.data_to_send())
        except (OSError, ssl.SSLError) as e:
            raise Ended(str(e)) from e

    def _on(self, e):
        if isinstance(e, (h2.events.ResponseReceived, h2.events.RequestReceived)):
            s = self.streams.setdefault(e.stream_id, Stream(e.stream_id))
            s.headers = list(e.headers)
            if isinstance(e, h2.events.RequestReceived):
                self.requests.append(s)
        elif isinstance(e, h2.events.DataReceived):
            self.streams[e.stream_id].data += e.data
            if not self.hold and e.flow_controlled_length:
                self.h2.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
        elif isinstance(e, h2.events.StreamEnded):
            self.streams[e.stream_id].ended = True
        elif isinstance(e, h2.events.StreamReset):
            self.streams.setdefault(e.stream_id, Stream(e.stream_id)).reset = int(e.error_code)
        elif isinstance(e, h2.events.RemoteSettingsChanged):
            self.settings.update({int(k): v.new_value for k, v in e.changed_settings.items()})
        elif isinstance(e, h2.events.PingAckReceived):
            self.pongs.append(e.ping_data)
        elif isinstance(e, h2.events.ConnectionTerminated):
            self.goaway = int(e.error_code)

    def read(self):
        """What comes next; True as long as something may come."""
        try:
            data = self.sock.recv(1 << 18)
        except (OSError, ssl.SSLError) as e:
            raise Ended(str(e)) from e
        if not data:
            raise Ended("end of the connection")
        for e in self.h2.receive_data(data):
            self._on(e)
        self.flush()

    def until(self, condition, what="an answer"):
        end = time.monotonic() + self.timeout
        while not condition():
            left = end - time.monotonic()
            assert left > 0, f"waited {self.timeout:.0f} s for {what}"
            self.sock.settimeout(left)
            try:
                self.read()
            except Ended as e:
                raise Ended(f"while waiting for {what}: {e}") from e

    # --- streams ---
    def open(self, headers=(), authority=None, end=False):
        """A CONNECT; or with `headers` whatever they say."""
        sid = self.h2.get_next_available_stream_id()
        fields = list(headers) or [(":method", "CONNECT"), (":authority", authority)]
        self.streams[sid] = Stream(sid)
        self.h2.send_headers(sid, fields, end_stream=end)
        self.flush()
        return self.streams[sid]

    def ask(self, authority=None, **kw):
        """Opens and waits for the answer."""
        s = self.open(authority=authority, **kw)
        self.until(lambda: s.headers is not None or s.over, f"an answer to {authority}")
        return s

    def answer(self, s, status="200", end=False):
        self.h2.send_headers(s.id, [(":status", status)], end_stream=end)
        self.flush()

    def send(self, s, data, end=False):
        """All of it, as far as windows let it; reads meanwhile."""
        view = memoryview(data)
        while view:
            room = min(self.h2.local_flow_control_window(s.id), self.h2.max_outbound_frame_size, len(view))
            if room == 0:
                self.until(lambda: self.h2.local_flow_control_window(s.id) > 0 or s.over, "a window")
                assert s.reset is None, "reset while sending"
                continue
            self.h2.send_data(s.id, bytes(view[:room]))
            view = view[room:]
            self.flush()
        if end:
            self.h2.end_stream(s.id)
            self.flush()

    def take(self, s, n, what="bytes"):
        self.until(lambda: len(s.data) >= n or s.over, what)
        return s.data

    def take_end(self, s):
        self.until(lambda: s.over, "the end of the stream")
        return s.data

    def reset(self, s, code=CANCEL):
        self.h2.reset_stream(s.id, code)
        self.flush()

    def ping(self, data=b"12345678"):
        n = len(self.pongs)
        self.h2.ping(data)
        self.flush()
        self.until(lambda: len(self.pongs) > n, "the answer to a PING")
        return self.pongs[-1]

    def leave(self):
        self.h2.close_connection()
        self.flush()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        self.sock.close()


def connect(ctx, address, port=PORT, timeout=PATIENCE_S, **settings):
    """A client's connection; raises ssl.SSLError or Ended if it is not let in (TLS 1.3 tells a client late)."""
    raw = socket.create_connection((address, port), timeout)
    try:
        link = Link(ctx.wrap_socket(raw), True, timeout).start(**settings)
        link.until(lambda: link.settings, "SETTINGS")
    except BaseException:
        raw.close()
        raise
    return link


class Server:
    """Accepts connections and hands each, as a Link that has begun, to `serve` in a thread of its own."""

    def __init__(self, ctx, address, serve, port=PORT, **settings):
        self.ctx, self.serve, self.settings = ctx, serve, settings
        self.listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.links, self.errors, self.threads = [], [], []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            t = threading.Thread(target=self._one, args=(raw,), daemon=True)
            self.threads.append(t)
            t.start()

    def _one(self, raw):
        try:
            raw.settimeout(PATIENCE_S)
            sock = self.ctx.wrap_socket(raw, server_side=True)
            link = Link(sock, False)
            link.names, link.alpn = peer_uri(sock), sock.selected_alpn_protocol()
            self.links.append(link)
            link.start(**self.settings)
            self.serve(link)
        except (Ended, OSError, ssl.SSLError) as e:
            self.errors.append(e)
        except Exception as e:  # noqa: BLE001: shown by the test
            self.errors.append(e)
        finally:
            raw.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for link in self.links:
            link.close()
        for t in self.threads:
            t.join(5)

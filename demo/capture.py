"""capture: everything that crosses the link between the namespaces, as bytes per flow.

An AF_PACKET socket in the switch's namespace, without a filter: what is not in `flows` was not on
the wire. The demo proves the capture itself by a marker that it sends in plaintext on purpose.
"""

import socket
import struct
import threading

from lab import in_netns

ETH_P_ALL = 3


class Capture:
    def __init__(self, netns):
        with in_netns(netns):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        self.sock.settimeout(0.2)
        self.flows = {}
        self.packets = 0
        self.lock = threading.Lock()
        self.running = True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while self.running:
            try:
                frame, where = self.sock.recvfrom(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            if where[2] == socket.PACKET_OUTGOING:
                continue
            self._add(where[0], frame)

    def _add(self, interface, frame):
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == 0x0800 and frame[23] == socket.IPPROTO_TCP:
            head = 14 + (frame[14] & 15) * 4
            end = 14 + struct.unpack_from("!H", frame, 16)[0]
            src, dst = frame[26:30], frame[30:34]
        elif kind == 0x86DD and frame[20] == socket.IPPROTO_TCP:
            head = 54
            end = head + struct.unpack_from("!H", frame, 18)[0]
            src, dst = frame[22:38], frame[38:54]
        else:
            return
        sport, dport = struct.unpack_from("!HH", frame, head)
        payload = frame[head + (frame[head + 12] >> 4) * 4 : end]
        with self.lock:
            self.packets += 1
            if payload:
                self.flows.setdefault((interface, src, sport, dst, dport), bytearray()).extend(payload)

    def holds(self, marker):
        with self.lock:
            return any(marker in flow for flow in self.flows.values())

    def tls_records(self):
        """Application-data records of TLS (content type 23, version 3.3) at the front of flows' writes."""
        with self.lock:
            return sum(bytes(flow).count(b"\x17\x03\x03") for flow in self.flows.values())

    def handshakes(self):
        """Flows that begin with a TLS handshake record."""
        with self.lock:
            return sum(flow[:2] == b"\x16\x03" for flow in self.flows.values())

    def size(self):
        with self.lock:
            return sum(len(flow) for flow in self.flows.values())

    def close(self):
        self.running = False
        self.thread.join(2)
        self.sock.close()

"""h2_server ADDRESS PORT: answers every request of HTTP/2 by prior knowledge with 200 and a few words."""

import socketserver
import sys

from h2 import config, connection, events, exceptions


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        conn = connection.H2Connection(config.H2Configuration(client_side=False))
        conn.initiate_connection()
        self.bare = set()  # streams of HEAD
        self.request.sendall(conn.data_to_send())
        while data := self.request.recv(65536):
            for e in conn.receive_data(data):
                self.react(conn, e)
            self.request.sendall(conn.data_to_send())

    def react(self, conn, e):
        if isinstance(e, events.RequestReceived) and dict(e.headers)[b":method"] == b"HEAD":
            self.bare.add(e.stream_id)
        elif isinstance(e, events.DataReceived) and e.flow_controlled_length:
            conn.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
        elif isinstance(e, events.StreamEnded):
            try:
                conn.send_headers(e.stream_id, [(":status", "200"), ("content-length", "23")], end_stream=e.stream_id in self.bare)
                if e.stream_id in self.bare:
                    return
                conn.send_data(e.stream_id, b"hello world hello world", end_stream=True)
            except exceptions.ProtocolError:
                pass  # reset meanwhile, or no window


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()

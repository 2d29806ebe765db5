"""A client for HTTP/2: several requests side by side on one connection."""

import socket

import h2.config
import h2.connection
import h2.events

from harness.client import Answer


class Http2:
    """One connection. `address` is a (host, port) pair; without `tls`, HTTP/2 is spoken from the first byte on."""

    def __init__(self, address, *, patience=20.0, tls=None, greet=True):
        self.socket = socket.create_connection(address, timeout=patience)
        if tls is not None:
            tls.set_alpn_protocols(["h2", "http/1.1"])
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.scheme = "http" if tls is None else "https"
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.protocol.initiate_connection()
        self.answers, self.ended, self.reset, self.closed = {}, set(), {}, None
        if greet:
            self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.protocol.data_to_send())

    def send(self, method, path, *, headers=(), body=None, end=True):
        """Send a request, or its beginning; return the number of its stream."""
        stream = self.protocol.get_next_available_stream_id()
        pairs = [(":method", method), (":scheme", self.scheme), (":authority", "localhost"), (":path", path)]
        self.protocol.send_headers(stream, [*pairs, *headers], end_stream=end and body is None)
        if body is not None:
            self.send_body(stream, body, end=end)
        self.flush()
        return stream

    def send_body(self, stream, body, *, end=True):
        while body:
            room = min(self.protocol.local_flow_control_window(stream), self.protocol.max_outbound_frame_size)
            if room == 0:
                self.flush()
                self.receive()
                continue
            self.protocol.send_data(stream, body[:room])
            body = body[room:]
        if end:
            self.protocol.end_stream(stream)
        self.flush()

    def cancel(self, stream):
        self.protocol.reset_stream(stream, error_code=8)
        self.flush()

    def receive(self):
        """Take in what has come; return whether the connection is still open."""
        data = self.socket.recv(1 << 16)
        for event in self.protocol.receive_data(data) if data else ():
            stream = getattr(event, "stream_id", None)
            if isinstance(event, h2.events.ResponseReceived):
                headers = [(name, value) for name, value in event.headers if not name.startswith(":")]
                self.answers[stream] = Answer(int(dict(event.headers)[":status"]), "", headers, b"")
            elif isinstance(event, h2.events.DataReceived):
                self.answers[stream].body += event.data
                self.protocol.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(stream)
            elif isinstance(event, h2.events.StreamReset):
                self.reset[stream] = event.error_code
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.closed = event.error_code
        self.flush()
        return bool(data)

    def answer(self, stream):
        """Wait for the whole answer on a stream."""
        while stream not in self.ended:
            assert stream not in self.reset, f"the stream was reset with {self.reset[stream]}"
            assert self.receive(), "the connection was closed"
        return self.answers[stream]

    def request(self, method, path, **options):
        return self.answer(self.send(method, path, **options))

    def get(self, path, **options):
        return self.request("GET", path, **options)

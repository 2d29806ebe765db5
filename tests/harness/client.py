"""A client for HTTP/1.1 that shows every byte: what is sent is exactly what the test says, and nothing is repeated."""

import json
import select
import socket
import struct
from dataclasses import dataclass, field


class ConnectionEnded(Exception):
    """The other side closed the connection before the answer was whole."""


@dataclass
class Answer:
    """One answer. Header names are in lower case, in the order in which they came."""

    status: int
    reason: str
    headers: list = field(repr=False)
    body: bytes

    def header(self, name, default=None):
        values = self.header_values(name)
        return values[0] if values else default

    def header_values(self, name):
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def content_type(self):
        return self.header("content-type")

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


def request_bytes(method, path, *, headers=(), body=b"", host="localhost"):
    """Write a request out. A body gets its length unless the headers say how it travels."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    names = {name.lower() for name, _ in pairs}
    if "host" not in names:
        pairs.insert(0, ("Host", host))
    if not names & {"content-length", "transfer-encoding"} and (body or method in ("POST", "PUT", "PATCH")):
        pairs.append(("Content-Length", str(len(body))))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in pairs) + "\r\n"
    return head.encode("latin-1") + body


class Connection:
    """One connection. `address` is a (host, port) pair, or the path of a Unix socket."""

    def __init__(self, address, *, patience=20.0, tls=None, receive_buffer=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(patience)
        try:
            self.socket.connect(address)
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        except BaseException:
            self.socket.close()
            raise
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """End the connection with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def request(self, method, path, **options):
        """Send one request and read its answer."""
        self.send(request_bytes(method, path, **options))
        return self.answer(method)

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def answer(self, method="GET"):
        """Read one answer; further bytes stay for the next one."""
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            version, status, reason = (head[0] + "  ").split(" ", 2)
            assert version in ("HTTP/1.1", "HTTP/1.0"), head[0]
            # 100 Continue is not an answer.
            if not status.startswith("1"):
                break
        pairs = [line.split(":", 1) for line in head[1:]]
        headers = [(name.lower(), value.strip()) for name, value in pairs]
        answer = Answer(int(status), reason.strip(), headers, b"")
        answer.body = self._body(answer, method)
        return answer

    def _body(self, answer, method):
        if method == "HEAD" or answer.status in (204, 304):
            return b""
        if answer.header("transfer-encoding", "").lower() == "chunked":
            body = bytearray()
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._until(b"\r\n") == b""
            return bytes(body)
        length = answer.header("content-length")
        if length is not None:
            return self._exactly(int(length))
        while self._receive():
            pass
        body, self.buffer = bytes(self.buffer), bytearray()
        return body

    def _receive(self):
        received = self.socket.recv(1 << 16)
        self.buffer += received
        return len(received)

    def _more(self):
        if not self._receive():
            raise ConnectionEnded(bytes(self.buffer))

    def _until(self, end):
        while (place := self.buffer.find(end)) < 0:
            self._more()
        taken = bytes(self.buffer[:place])
        del self.buffer[: place + len(end)]
        return taken

    def _exactly(self, size):
        while len(self.buffer) < size:
            self._more()
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def closed_within(self, seconds):
        """Whether the other side closes within so many seconds without another byte."""
        self.socket.settimeout(seconds)
        try:
            return not self.buffer and self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def has_something(self):
        """Whether a read would not have to wait."""
        return bool(self.buffer) or bool(select.select([self.socket], [], [], 0)[0])

"""A web server on this machine whose answers follow from the path: sound ones and all kinds of bad ones."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 40  # of /file


class Site(BaseHTTPRequestHandler):
    """Answers by the first word of the path."""

    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        self.server.connections.add(self.client_address)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        getattr(self, "answer_" + self.path.split("/")[1].partition("?")[0].replace("%20", "_"))()

    do_HEAD = do_GET

    def answer_file(self) -> None:
        self._send_ranged(CONTENT)

    def answer_tagged(self) -> None:
        self._send(200, CONTENT, ETag='"v1"')

    def answer_whole_only(self) -> None:
        self._send(200, CONTENT)

    def answer_wrong_range(self) -> None:
        self._send(206, CONTENT[:10], **{"Content-Range": f"bytes 0-9/{len(CONTENT)}"})

    def answer_silent_range(self) -> None:  # without Content-Range, as some servers answer
        self._send(206, CONTENT[5:10])

    def answer_long_range(self) -> None:
        self._send(206, CONTENT)

    def answer_short(self) -> None:
        self._send(200, b"half", length=100)
        self.close_connection = True

    def answer_torn_chunks(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nhello\r\n")
        self.close_connection = True

    def answer_chunks(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n")

    def answer_status(self) -> None:
        self._send(int(self.path.split("/")[2]), b"no")

    def answer_later(self) -> None:
        self._send(503, b"", **{"Retry-After": self.path.split("/")[2].replace("%20", " ")})

    def answer_flaky(self) -> None:
        self.answer_file() if self.server.asked[self.path] > 2 else self._send(503, b"later")

    def answer_turn(self) -> None:
        self._send(302, b"", Location="/file")

    def answer_circle(self) -> None:
        self._send(302, b"", Location="/circle")

    def answer_elsewhere(self) -> None:
        self._send(302, b"", Location=self.path.split("/", 2)[2])

    def answer_stall(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"some")
        self.wfile.flush()
        self.server.release.wait(5)
        self.close_connection = True

    def answer_trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.02)

    def answer_garbage(self) -> None:
        self.wfile.write(b"\0\1\2 not http\r\n\r\n")
        self.close_connection = True

    def answer_refused(self) -> None:
        self._send(200, b"image", **{"X-Robots-Tag": "otherbot: noindex, noai"})

    def log_message(self, *words: object) -> None:
        pass

    def _send_ranged(self, content: bytes) -> None:
        asked = self.headers.get("Range")
        if not asked:
            return self._send(200, content, ETag='"v1"')
        start, stop = (int(word) for word in asked.removeprefix("bytes=").split("-"))
        if start >= len(content):
            return self._send(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
        part = content[start : stop + 1]
        span = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        self._send(206, part, **{"Content-Range": span})

    def _send(self, status: int, content: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Counts what it is asked, and says nothing about clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        pass


@contextmanager
def serve_site() -> Iterator[tuple[str, Server]]:
    """The address of a running site, and the server with its `asked` and `connections`."""
    server = Server(("127.0.0.1", 0), Site)
    server.asked, server.connections, server.headers, server.release = Counter(), set(), [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""A wire between a client and a server that can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Cut = Callable[[bytes, bytes], int | None]
"""(what the client sent last, a piece of the answer) → how much of that piece arrives before the wire is cut; None for
all of it, and no cut.
"""


def _uncut(sent: bytes, answer: bytes) -> None:
    """All of an answer arrives."""


def _at_once(_: bytes) -> None:
    """What waits for nothing."""


class Held:
    """Holds back the first piece that a client sends with all these bytes in it, until it is let go.

    Attributes:
        reached: set when it waits.
        let_go: to be set.
    """

    def __init__(self, *parts: bytes) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()
        self._parts = parts

    def __call__(self, sent: bytes) -> None:
        if all(part in sent for part in self._parts) and not self.reached.is_set():
            self.reached.set()
            self.let_go.wait()


class Relay:
    """Passes bytes on between clients and a server until it is cut; then nobody gets through until it is mended.

    Args:
        before: called with every piece that a client sends; it may wait, and the piece with it.

    Attributes:
        port: where clients reach it.
    """

    def __init__(self, server_port: int, cut: Cut = _uncut, before: Callable[[bytes], None] = _at_once) -> None:
        self._behind, self._decide, self._before = server_port, cut, before
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock, self._open = threading.Lock(), set[socket.socket]()
        self._whole = threading.Event()
        self._whole.set()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._behind))
            with self._lock:
                self._open |= {client, server}
            sent = [b""]
            threading.Thread(target=self._forth, args=(client, server, sent), daemon=True).start()
            threading.Thread(target=self._back, args=(client, server, sent), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket, sent: list[bytes]) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                sent[0] = data
                self._before(data)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _back(self, client: socket.socket, server: socket.socket, sent: list[bytes]) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                arriving = self._decide(sent[0], data)
                client.sendall(data if arriving is None else data[:arriving])
                if arriving is not None:
                    self._whole.clear()
                    self._drop()
            client.shutdown(socket.SHUT_WR)

    def _drop(self) -> None:
        with self._lock:
            dropped, self._open = self._open, set()
        for end in dropped:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def relayed(server_port: int, cut: Cut = _uncut, before: Callable[[bytes], None] = _at_once) -> Iterator[Relay]:
    """A relay before a server for as long as the context lasts."""
    relay = Relay(server_port, cut, before)
    try:
        yield relay
    finally:
        relay.close()


@contextmanager
def held_back(server_port: int, held: Held) -> Iterator[Relay]:
    """A relay that holds something back, if not let go before, for as long as the context lasts."""
    with relayed(server_port, before=held) as relay:
        try:
            yield relay
        finally:
            held.let_go.set()

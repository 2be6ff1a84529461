"""Many phones on real sockets, each of which checks every message it is sent, in order.

A `Phone` is one carrier stream. It plays what comes at once, so that marks go back as fast as
the socket carries them, unless it is told to keep them until a clear, as a carrier does that has
not played yet. `Exchange` is the thread that reads for some of them.

Two ways to read a WebSocket, so that one defect cannot hide in both: `full` phones use the
`websockets` package's client, the others a reader of their own that knows the few forms of frame
a server may send.
"""

from __future__ import annotations

import select
import socket
import time
from binascii import a2b_base64
from collections.abc import Callable, Iterator

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from threadline.wire.twilio_carrier import TwilioCarrier

from . import pattern
from .bout import DEADLINE, Bout

_MEDIA = '{"event":"media","streamSid":"'
_MARKED = '"mark":{"name":"'


class Told:
    """What a phone was sent in one epoch: the last clause, how much of it, and of all clauses."""

    __slots__ = ("clause", "clauses", "frames", "marked", "number")

    def __init__(self) -> None:
        self.number = 0  # frames
        self.clause = 0
        self.frames = 0  # of that clause
        self.clauses: dict[int, int] = {}  # frames of each
        self.marked: set[int] = set()


class Phone:
    """One call. Everything here belongs to the thread that reads, except where it says."""

    def __init__(self, bout: Bout, number: int, address: tuple[str, int], *, full: bool) -> None:
        self.number = number
        self.full = full
        self.sock = socket.create_connection(address, DEADLINE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ws = ClientProtocol(parse_uri(f"ws://{address[0]}:{address[1]}/twilio"))
        self.carrier = TwilioCarrier(f"MZ{number}", f"CA{number}", "AC0", {})
        self.keeps_marks = False  # until a clear, as a carrier that is slow to play
        self.gone = False  # the server has closed the connection
        self.frames = self.clears = self.marks = self.ends = 0
        self.fresh = 0  # frames since the last clear; any thread may look
        self.epochs: dict[int, Told] = {}
        self.epoch = -1  # of the last frame
        self.sent = 0  # frames of caller audio
        self._bout = bout
        self._cleared = False  # nothing has come since the last clear
        self._ended = False  # nothing has come since the end of an answer: all of it was played
        self.leaving = False  # nothing more is sent
        self.hung_up = False  # by us
        self._kept: list[str] = []
        self._data = b""

    # -- before the exchange has it ---------------------------------------------------------

    def upgrade(self) -> int:
        """Shake hands; the status of the answer."""
        self.ws.send_request(self.ws.connect())
        self._flush()
        end = time.monotonic() + DEADLINE
        while self.ws.state.name == "CONNECTING" and not self.gone:
            self._bout.expect(time.monotonic() < end, f"phone {self.number} is not answered")
            self._receive_upgrade()
        failure = self.ws.handshake_exc
        if failure is None:
            return 101
        response = getattr(failure, "response", None)
        return 0 if response is None else int(response.status_code)

    def _receive_upgrade(self) -> None:
        # The head alone, so that a reader of our own finds the first frame where it begins.
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.sock.recv(1)
            if not piece:
                self.gone = True
                self.ws.receive_eof()
                return
            head += piece
        self.ws.receive_data(head)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            while piece := self.sock.recv(65_536):
                self.ws.receive_data(piece)
            self.gone = True
            self.ws.receive_eof()
        list(self.ws.events_received())

    def start(self) -> None:
        """The carrier's greeting: somebody is on the line."""
        self.send(self.carrier.connected(), self.carrier.start())

    # -- sending ----------------------------------------------------------------------------

    def send(self, *texts: str) -> None:
        """Whole messages."""
        if self.full:
            if self.ws.state.name == "OPEN":  # else the server has closed
                for text in texts:
                    self.ws.send_text(text.encode())
            self._flush()
        else:
            self._write(b"".join(_masked(text.encode()) for text in texts))

    def say(self, frames: int) -> None:
        """So much caller audio, labelled with this call."""
        first, self.sent = self.sent, self.sent + frames
        audio = (pattern.frame(self.number, 0, 0, count) for count in range(first, self.sent))
        self.send(*map(self.carrier.media, audio))

    def hang_up(self) -> None:
        """As the carrier does; the server then closes."""
        self.leaving = self.hung_up = True
        self.send(self.carrier.stop())

    def cut(self) -> None:
        """The cable is pulled: a reset, no goodbye."""
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4)
        )
        self.close()

    def close(self) -> None:
        self.gone = True
        self.sock.close()

    def _flush(self) -> None:
        self._write(b"".join(self.ws.data_to_send()))

    def _write(self, data: bytes) -> None:
        if data and not self.gone:
            try:
                self.sock.sendall(data)
            except BrokenPipeError, ConnectionResetError:
                self.gone = True

    # -- what comes -------------------------------------------------------------------------

    def read(self) -> None:
        """Something is there: take it, check it, answer it."""
        try:
            data = self.sock.recv(65_536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.gone = True
            return
        back: list[str] = []
        for text in self._texts_of_full(data) if self.full else self._texts(data):
            self._take(text, back)
        if back and not self.leaving:
            self.send(*back)

    def _texts_of_full(self, data: bytes) -> Iterator[str]:
        self.ws.receive_data(data)
        for event in self.ws.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                yield bytes(event.data).decode()
        self._flush()

    def _texts(self, data: bytes) -> Iterator[str]:
        """A server's frames are unmasked, and ours are never fragmented."""
        data = self._data + data if self._data else data
        at = 0
        while len(data) - at >= 2:
            kind, size, begin = data[at], data[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(data[at + 2 : at + 4]), at + 4
            self._bout.expect(size < 65_536 and not data[at + 1] & 0x80, "a frame of an odd form")
            if begin + size > len(data) or begin > len(data):
                break
            at = begin + size
            if kind == 0x81:
                yield data[begin:at].decode()
            elif kind == 0x88:  # the server closes, and waits for our answer
                self.leaving = True
                self._write(b"\x88\x82" + bytes(4) + data[begin : begin + 2])
            elif (
                kind != 0x8A or not self.leaving
            ):  # the random bytes of one who leaves may be a ping
                self._bout.forbid(f"phone {self.number} was sent a WebSocket frame {kind:#x}")
        self._data = data[at:]

    def _take(self, text: str, back: list[str]) -> None:
        if text.startswith(_MEDIA):
            self._media(text)
        elif '"event":"clear"' in text[:20]:
            self._clear(back)
        elif '"event":"mark"' in text[:20]:
            self._mark(text, back)
        else:
            self._bout.forbid(f"phone {self.number} was sent {text[:80]}")

    def _media(self, text: str) -> None:
        label = pattern.read(a2b_base64(text[text.index('"payload":"') + 11 : -3]))
        if label is None:
            self._bout.forbid(f"phone {self.number} was sent a torn frame: {text[:200]}")
        self.frames += 1
        self._check(label)

    def _check(self, label: pattern.Label) -> None:
        expect = self._bout.expect
        expect(label.call == self.number, f"phone {self.number} heard {label}, of another call")
        if self._cleared:
            newer = label.epoch > self.epoch
            expect(newer, f"phone {self.number} heard {label} after the clear of {self.epoch}")
            self._cleared = False
        elif self.epoch >= 0 and label.epoch != self.epoch and not self._ended:
            self._bout.forbid(
                f"phone {self.number} heard {label} without a clear of epoch {self.epoch}"
            )
        self.epoch, self._ended = label.epoch, False
        told = self.epochs.get(label.epoch)
        if told is None:
            told = self.epochs[label.epoch] = Told()
        if label.number != told.number:
            self._bout.forbid(f"phone {self.number} heard {label}, not frame {told.number}")
        told.number += 1
        if label.clause != told.clause:
            expect(label.clause > told.clause, f"phone {self.number}: {label} after {told.clause}")
            told.clause, told.frames = label.clause, 0
        told.frames += 1
        told.clauses[label.clause] = told.frames
        self.fresh += 1

    def _clear(self, back: list[str]) -> None:
        self._bout.expect(not self._cleared, f"phone {self.number} was cleared twice")
        self._cleared = True
        self.clears += 1
        self.fresh = 0
        for name in self._kept:  # as the carrier does
            self._echo(name, back)
        self._kept.clear()

    def _mark(self, text: str, back: list[str]) -> None:
        at = text.index(_MARKED) + len(_MARKED)
        name = text[at : text.index('"', at)]
        epoch, _, clause = name.partition(".")
        self._check_mark(int(epoch), clause)
        self._ended = clause == "end"
        self.ends += self._ended
        self.marks += 1
        if self.keeps_marks and clause != "end":
            self._kept.append(name)
        else:
            self._echo(name, back)

    def _check_mark(self, epoch: int, clause: str) -> None:
        current = epoch == self.epoch and not self._cleared
        self._bout.expect(current, f"phone {self.number}: mark {epoch}.{clause} in {self.epoch}")
        if clause != "end":
            told = self.epochs[epoch]
            self._bout.expect(int(clause) == told.clause, f"mark {clause} after {told.clause}")
            told.marked.add(told.clause)

    def _echo(self, name: str, back: list[str]) -> None:
        if not self.leaving:
            back.append(self.carrier.mark(name))


class Exchange:
    """Reads for some phones, on the thread that calls `turn`."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._phones: dict[int, Phone] = {}

    def add(self, phone: Phone) -> None:
        """Any thread."""
        self._phones[phone.sock.fileno()] = phone
        self._poll.register(phone.sock, select.EPOLLIN)

    def turn(self, each: Callable[[Phone], object] | None = None) -> None:
        """Read what has come, waiting up to 20 ms for it; then `each` for those that had any."""
        for fd, _ in self._poll.poll(0.02, 64):
            phone = self._phones[fd]
            phone.read()
            if each is not None and not phone.gone:
                each(phone)
            if phone.gone:
                self._poll.unregister(fd)
                del self._phones[fd]
                phone.close()

    def close(self) -> None:
        for phone in self._phones.values():
            phone.close()
        self._poll.close()


def _masked(data: bytes) -> bytes:
    """One text frame of a client. The mask is zero, which is a mask like any other."""
    size = len(data)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2)
    return head + bytes(4) + data

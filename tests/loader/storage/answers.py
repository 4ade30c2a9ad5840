"""Answers of hostile and broken HTTP servers, byte by byte, by the name of what is wrong."""

import gzip
import time
from itertools import repeat

OK = b"HTTP/1.1 200 OK\r\n"
CLOSE = b"Content-Length: 0\r\nConnection: close\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(1 << 27))
"""128 MiB in 130 kB."""


def endless(head, block):
    """Send ``block`` for ever."""
    yield head
    yield from repeat(block)


def drip(head, block):
    """Send ``block`` for ever, slowly."""
    yield head
    while True:
        time.sleep(0.02)
        yield block


def sized(head, body):
    """Send ``body`` with its true length."""
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def packed(encoding, body):
    """Send a body that is said to be packed."""
    return sized(OK + b"Content-Encoding: " + encoding + b"\r\n", body)


def redirect(location, status=302):
    """Lead elsewhere."""
    return b"HTTP/1.1 %d Go\r\n" % status + CLOSE + b"Location: " + location + b"\r\n\r\n"


def later(value):
    """Ask to be asked later."""
    return b"HTTP/1.1 503 Busy\r\n" + CLOSE + b"Retry-After: " + value + b"\r\n\r\n"


ENDLESS = {
    "status line": lambda: endless(b"HTTP/1.1 200 ", b"a" * 65536),
    "header": lambda: endless(OK + b"X: ", b"a" * 65536),
    "headers": lambda: endless(OK, b"X: y\r\n" * 10000),
    "folded header": lambda: endless(OK + b"X: y", b"\r\n y" * 10000),
    "100 Continue": lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "103 Early Hints": lambda: endless(b"", b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * 1000),
    "body": lambda: endless(OK + b"Connection: close\r\n\r\n", bytes(1 << 20)),
    "body of a length": lambda: endless(
        OK + b"Content-Length: %d\r\n\r\n" % (1 << 50), bytes(9999)
    ),
    "chunks": lambda: endless(CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n"),
    "chunk size": lambda: endless(CHUNKED, b"0" * 65536),
    "chunk extension": lambda: endless(CHUNKED + b"4;", b"a" * 65536),
    "trailers": lambda: endless(CHUNKED + b"4\r\nabcd\r\n0\r\n", b"X: y\r\n" * 10000),
    "body of an error": lambda: endless(b"HTTP/1.1 500 Oh\r\n\r\n", bytes(1 << 20)),
    "body of a refusal": lambda: endless(b"HTTP/1.1 403 No\r\n\r\n", b"<x>" * (1 << 18)),
    "body of a redirect": lambda: endless(b"HTTP/1.1 302 Go\r\nLocation: a\r\n\r\n", bytes(9999)),
    "status line, slowly": lambda: drip(b"H", b"T"),
    "headers, slowly": lambda: drip(OK, b"X: y\r\n"),
    "body, slowly": lambda: drip(OK + b"Content-Length: 99999\r\n\r\n", b"x"),
    "chunks, slowly": lambda: drip(CHUNKED, b"1\r\nx\r\n"),
    "trailers, slowly": lambda: drip(CHUNKED + b"4\r\nabcd\r\n0\r\n", b"X: y\r\n"),
    "silence": lambda: drip(b"", b""),
    "bomb of gzip": lambda: iter([packed(b"gzip", BOMB)]),
    "bomb of gzip in an error": lambda: iter(
        [sized(b"HTTP/1.1 500 Oh\r\nContent-Encoding: gzip\r\n", BOMB)]
    ),
}
"""What has no end, or none that a client should wait for."""

BROKEN = {
    "nothing": b"",
    "zeros": bytes(5000),
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "alert of TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "HTTP/0.9": b"hello",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "half a status line": b"HTTP/1.1 20",
    "status 0": b"HTTP/1.1 000 OK\r\n" + CLOSE + b"\r\n",
    "status 99": b"HTTP/1.1 099 OK\r\n" + CLOSE + b"\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\n" + CLOSE + b"\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\n" + CLOSE + b"\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "negative status": b"HTTP/1.1 -20 OK\r\n\r\n",
    "status of another script": "HTTP/1.1 ٢٠٠ OK\r\n\r\n".encode(),
    "length of letters": OK + b"Content-Length: abc\r\n\r\nabcd",
    "length of 5,000 digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabcd",
    "more promised than sent": OK + b"Content-Length: 9999\r\nConnection: close\r\n\r\nabcd",
    "chunk of a negative size": CHUNKED + b"-4\r\nabcd\r\n0\r\n\r\n",
    "chunk of a huge size": CHUNKED + b"ffffffffffffffffffff\r\nabcd",
    "chunk of no size": CHUNKED + b"zz\r\nabcd\r\n",
    "chunk longer than its size": CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n",
    "chunk shorter than its size": CHUNKED + b"8\r\nabcd\r\n0\r\n\r\n",
    "chunks without an end": CHUNKED + b"4\r\nabcd\r\n",
    "many packings": packed(b"gzip, " * 500, b"abcd"),
    "a part, which is all": sized(b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-3/4\r\n", b"abcd"),
    "a part that lies": sized(b"HTTP/1.1 206 Part\r\nContent-Range: bytes 9-3/zz\r\n", b"abcd"),
    "parts": sized(b"HTTP/1.1 206 Part\r\nContent-Type: multipart/byteranges\r\n", b"--x"),
    "no such range": b"HTTP/1.1 416 No\r\nContent-Range: bytes */4\r\n" + CLOSE + b"\r\n",
    "redirect to nowhere": b"HTTP/1.1 302 Go\r\n" + CLOSE + b"\r\n",
    "redirect to the same": redirect(b"?a"),
    "redirect that is empty": redirect(b""),
    "redirect that is no address": redirect(b"http://["),
    "redirect that is no text": redirect(b"/\xff\xfe\x80 x"),
    "redirect with an escape": redirect(b"http://\x1b[31m/x"),
    "choices": b"HTTP/1.1 300 Many\r\n" + CLOSE + b"\r\n",
    "use a proxy": redirect(b"http://localhost:9", 305),
    "not modified": b"HTTP/1.1 304 Same\r\nConnection: close\r\n\r\n",
    "no content": b"HTTP/1.1 204 None\r\nConnection: close\r\n\r\n",
    "made": sized(b"HTTP/1.1 201 Made\r\n", b"abcd"),
    "other protocol": b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "page to log in": sized(OK + b"Content-Type: text/html\r\n", b"<html>Please log in</html>"),
    "error in XML": sized(b"HTTP/1.1 500 Oh\r\n", b"<Error><Code>InternalError</Code></Error>"),
    "error in XML, cut": sized(b"HTTP/1.1 500 Oh\r\n", b"<Error><Code>\x00\xff"),
    "error in deep XML": sized(b"HTTP/1.1 500 Oh\r\n", b"<a>" * 200_000),
    "error in deep JSON": sized(
        b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\n", b"[" * 200_000
    ),
    **{
        f"later: {name}": later(value)
        for name, value in {
            "a strange digit": b"\xc2\xb2",
            "another script": "٣".encode(),
            "negative": b"-5",
            "not finite": b"inf",
            "no number": b"nan",
            "empty": b"",
            "5,000 digits": b"9" * 5000,
            "two": b"1, 2",
            "a fraction": b"0.5",
            "the past": b"Thu, 01 Jan 1970 00:00:00 GMT",
            "no date": b"Thu, 99 Foo 1970 77:00:00 GMT",
            "before all dates": b"Sat, 01 Jan 0000 00:00:00 +0100",
            "after all dates": b"Fri, 31 Dec 9999 23:59:59 -2359",
        }.items()
    },
}
"""What is no answer, and may be one a moment later."""

PATIENT = {"in years": later(b"99999999"), "in year 9999": later(b"Fri, 31 Dec 9999 23:59:59 GMT")}
"""What asks for more patience than anybody has."""

REFUSALS = {
    400: b"HTTP/1.1 400 No\r\n" + CLOSE + b"\r\n",
    401: sized(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Digest \xff\r\n", b"<html>"),
    403: sized(b"HTTP/1.1 403 No\r\nContent-Type: application/json\r\n", b"[" * 200_000),
    407: b"HTTP/1.1 407 No\r\n" + CLOSE + b"\r\n",
    451: b"HTTP/1.1 451 No\r\n" + CLOSE + b"\r\n",
}
"""What another try would not change."""

FOREIGN = [
    b"file:///etc/passwd",
    b"ftp://127.0.0.1:9/x",
    b"gopher://127.0.0.1:9/x",
    b"http://localhost:9/x",
    b"//localhost:9/x",
    b"https://127.0.0.1:9/x",
    b"http://user:secret@localhost:9/x",
]
"""Where a redirect must not lead."""

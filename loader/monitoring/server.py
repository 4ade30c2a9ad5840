"""MonitorServer: a local web page that shows a running job, and changes its weights.

The server listens only on the loopback address, so other machines cannot reach it. The page itself
contains no data; its script requests data from the server, with a secret token. The page takes the
token from its own address, where it is after ``#``, a part that browsers never send. The script
sends the token in a header, which no page of another site can do. Requests with a wrong ``Host``
are also refused, because another site may let its host name resolve to this machine.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import ClimbError, InvalidDataError, UsageError
from climbstream.loader.core.html_page import SCRIPT, STYLE
from climbstream.loader.core.typed import parse_json
from climbstream.loader.weights.request import read_clusters, with_named_weights, write_request
from climbstream.loader.weights.sources import waiting_change
from climbstream.loader.weights.update import WeightsUpdate

from .run_status import RunStatus

HOST = "127.0.0.1"
_PAGE = Path(__file__).with_name("monitor.html")
_MOST_BODY = 1 << 20
"""Largest size of the body of a request, in bytes."""
_MOST_CONNECTIONS = 32
"""Largest number of connections that are open at the same time."""
_SILENCE = 10.0
"""Longest time without data on a connection, in seconds."""
_LONGEST = 30.0
"""Longest duration of a connection, in seconds."""


class MonitorServer(ThreadingHTTPServer):
    """Serves the page of one run on the loopback address, ``127.0.0.1``."""

    daemon_threads = True

    def __init__(self, watch: RunStatus, port: int = 0) -> None:
        """Begin to listen on ``port``; 0: on any free port.

        ``watch`` provides the state of the run.

        Raises:
            OSError: The port is in use.
        """
        self.watch = watch
        self.token = secrets.token_urlsafe(24)
        self._begun: dict[socket.socket, float] = {}
        self._counting = threading.Lock()
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the page, including the token."""
        return f"http://{HOST}:{self.server_port}/#{self.token}"

    @cached_property
    def page(self) -> bytes:
        """The HTML of the page, with the style and script that all pages of climbstream share."""
        html = _PAGE.read_text(encoding="utf-8")
        return html.replace("/* page.css */", STYLE).replace("/* page.js */", SCRIPT).encode()

    @cached_property
    def policy(self) -> str:
        """Content security policy: the page runs only its script, and calls only this server."""
        script = re.search(rb"<script>(.*?)</script>", self.page, re.DOTALL)
        assert script
        digest = base64.b64encode(hashlib.sha256(script[1]).digest()).decode()
        return (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a new connection; if 32 connections are open already, close the new one."""
        with self._counting:
            if taken := len(self._begun) < _MOST_CONNECTIONS:
                self._begun[request] = time.monotonic()
        if taken:
            super().process_request(request, client_address)
        else:
            super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and no longer count it as open."""
        with self._counting:
            self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that have lasted over 30 s; called several times per second."""
        with self._counting:
            for request, begun in self._begun.items():
                if time.monotonic() - begun > _LONGEST:
                    with suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: most errors mean that the client has closed the connection."""


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: MonitorServer
    timeout = _SILENCE
    server_version, sys_version = "climb", ""

    def do_GET(self) -> None:
        """Answer with the page, or with the state of the run."""
        if not self._is_ours():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif self.path == "/state":
            if self._is_allowed():
                self._answer(self.server.watch.look)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path[:100]}")

    def do_POST(self) -> None:
        """Answer a request for new weights; write the request to the folder of the run."""
        if not self._is_ours():
            return
        if self.path != "/weights":
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path[:100]}")
        elif self._is_allowed() and (body := self._body()) is not None:
            self._answer(lambda: self._change(body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is theirs
        """Write nothing, because requests contain the token."""

    def _change(self, body: bytes) -> dict[str, Any]:
        """Write the change in ``body`` to the folder of the run; return the change as JSON values.

        Raises:
            InvalidDataError: ``body`` is no change of weights.
            UsageError: The weights have changed since the page was last updated, or the change is
                not possible.
        """
        try:
            value = parse_json(body, "it")
            weights, only = value["weights"], value.get("only", False)
            ramp, why, after = value.get("ramp", 0), value.get("why", ""), value.get("after")
        except (InvalidDataError, KeyError, TypeError, AttributeError):
            raise InvalidDataError(
                "a change must be a JSON object with the field weights; the fields only, ramp, why "
                "and after may be left out"
            ) from None
        if not isinstance(weights, dict) or type(only) is not bool:
            raise InvalidDataError(
                "'weights' must be numbers by cluster, and 'only' must be true or false"
            )
        run, log = self.server.watch.run, self.server.watch.log
        if after is not None and after != log.head:
            raise UsageError(
                "the weights have changed since you looked; look at the last record, and ask again"
            )
        waiting = waiting_change(run, log)
        mixture = with_named_weights(
            log, weights, only=only, clusters=read_clusters(run), waiting=waiting
        )
        change = WeightsUpdate(mixture, ramp, why)
        write_request(run, change, log.head)
        return {**change.to_json(), "replaces": waiting.to_json() if waiting else None}

    def _answer(self, function: Any) -> None:
        try:
            value = function()
        except ClimbError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        else:
            self._send(HTTPStatus.OK, json.dumps(value).encode(), "application/json")

    def _is_ours(self) -> bool:
        """Whether the request names this server as its host, and does not come from another site.

        If the result is False, the request has been answered with an error.
        """
        names = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if self.headers.get("Host") not in names:
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that climb monitor printed")
            return False
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in names:
            self._refuse(HTTPStatus.FORBIDDEN, "the request came from another site")
            return False
        return True

    def _is_allowed(self) -> bool:
        header = self.headers.get("Authorization", "").encode()
        if hmac.compare_digest(header, f"Bearer {self.server.token}".encode()):
            return True
        self._refuse(
            HTTPStatus.UNAUTHORIZED,
            "the token is missing or wrong; open the address that climb monitor printed",
        )
        return False

    def _body(self) -> bytes | None:
        """Return the body of the request; None if it is incomplete, too large or of unknown length.

        A body that is too large, above 1 MiB, or of unknown length is answered with an error.
        """
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > _MOST_BODY:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a change takes at most {_MOST_BODY:,} bytes"
            )
            return None
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else None  # the client hung up, or was too slow

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", self.server.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

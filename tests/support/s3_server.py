"""A real S3 server on loopback, moto's, which can be told to misbehave."""

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"


class S3Server:
    """The server, what it was asked, and how many bytes it sent for each object."""

    def __init__(self):
        self.sent = Counter()
        self.asked = []
        """Method, path and status of each request, in the order of the answers."""
        self.behave()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._write = threading.Lock()
        """Held while an object is written: moto looks whether it exists, and writes it later."""

        class Quiet(WSGIRequestHandler):
            def log(self, *_):
                pass

        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def behave(self):
        """Answer as a server should, and forget what was asked."""
        self.misbehave = lambda method, path: None
        """Takes method and path of a request; may return the status of another answer."""
        self.deaf = False
        """Whether it overwrites objects though it is asked not to."""
        self.lose = lambda method, path: False
        """Whether it answers with an error after it has done what was asked."""
        self.asked.clear()

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], unquote(environ["PATH_INFO"])
        if self.deaf:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        status = self.misbehave(method, path)
        if status is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            yield from self._refuse(start_response, method, path, status)
            return
        started = []
        with self._write if method in ("PUT", "POST") else contextlib.nullcontext():
            body = b"".join(self._moto(environ, lambda *answer: started.extend(answer)))
        if self.lose(method, path):
            yield from self._refuse(start_response, method, path, 500)
            return
        self.asked.append((method, path, int(started[0].split()[0])))
        self.sent[path] += len(body) * (method == "GET")
        start_response(*started[:2])
        yield body

    def _refuse(self, start_response, method, path, status):
        code = {403: "AccessDenied", 503: "SlowDown"}.get(status, "Error")
        body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
        start_response(f"{status} told", [("Content-Length", str(len(body)))])
        self.asked.append((method, path, status))
        yield b"" if method == "HEAD" else body

    def objects(self, prefix):
        """Return the bytes of each object below ``prefix``, by its name there."""
        client = boto3.client("s3")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {
            key.removeprefix(f"{prefix}/"): client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in keys
        }

    def written(self, prefix):
        """Return the names of the objects below ``prefix`` that were written, in their order."""
        start = f"/{BUCKET}/{prefix}/"
        return [
            path.removeprefix(start)
            for method, path, status in self.asked
            if method == "PUT" and status == 200 and path.startswith(start)
        ]

    def close(self):
        """End the server."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server with one bucket; the environment, which processes inherit, points to it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
    server.close()

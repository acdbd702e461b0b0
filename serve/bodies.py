"""Bodies of requests: read within a limit, and whole."""

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException
from starlette.types import Message

from serve.protocol import RequestError

_TAIL_BYTES = 80
"""A boundary has at most 70 characters (RFC 2046), and two dashes on each side of it end a form."""


def limited(request: Request, limit: int) -> Request:
    """The request, with a body that raises 413 past `limit` bytes; at once where its length is announced.

    Raises:
        RequestError: 413; 415, the body is compressed.
    """
    encoding = request.headers.get("content-encoding", "")
    if encoding.lower() not in ("", "identity"):
        raise RequestError(415, f"the content encoding {encoding} is not accepted: send the request as it is")
    # What still comes after the answer is thrown away by the server. To close the connection, which looks cheaper,
    # resets it under the answer, so that many clients never see it.
    error = RequestError(413, f"the request is larger than {limit} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise error
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise error
        return message

    return Request(request.scope, receive)


def limited_form(request: Request, limit: int) -> Request:
    """The request, as `limited`, whose `form` raises 400 where its end is missing.

    Starlette's parser leaves out a file whose part has no end, and says nothing of it.

    Raises:
        RequestError: as `limited`.
    """
    within, tail, ended = limited(request, limit), b"", False
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary")

    async def receive() -> Message:
        nonlocal tail, ended
        message = await within.receive()
        tail = tail[-_TAIL_BYTES:] + message.get("body", b"")
        ended = ended or boundary is None or b"--" + boundary + b"--" in tail
        if message["type"] == "http.request" and not message.get("more_body") and not ended:
            raise MultiPartException("the form is cut off: its last boundary is missing; send all of it")
        return message

    return Request(request.scope, receive)

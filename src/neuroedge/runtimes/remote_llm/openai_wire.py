"""POST /chat/completions and its server-sent events over the SDK's HTTP library, without the SDK around each call.

The SDK builds a request in half a millisecond, most of it for parsing the same URL again and merging the same headers:
more than anything else here does before an answer's first piece (benchmarks/gateway_overhead.py). Its client, its
connections and its limits are used all the same; see `Client` in connections.py.

Source of the events' format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

import httpx2
from pydantic_core import to_json

from neuroedge.runtimes.remote_llm.connections import Client

_MOST_EVENT_BYTES: Final = 16 * 1024 * 1024


class RefusedError(Exception):
    """An answer other than the one asked for, as errors.py reads it; the text of it is the provider's."""

    def __init__(
        self, message: str, *, body: object, status_code: int | None = None, response: httpx2.Response | None = None
    ) -> None:
        super().__init__(message)
        self.body = body
        self.status_code = status_code
        self.response = response


async def opened(client: Client, asked: Mapping[str, Any], *, silence_s: float) -> httpx2.Response:
    """The answer, its body unread; to be closed. Raises RefusedError, httpx2.HTTPError."""
    content, headers = to_json(asked), client.chat_headers.copy()
    headers["Content-Length"] = str(len(content))
    request = httpx2.Request(
        "POST",
        client.chat_url,
        headers=headers,
        stream=httpx2.ByteStream(content),
        extensions={"timeout": client.timeout(silence_s).as_dict()},
    )
    response: httpx2.Response = await client.http.send(request, stream=True)
    if response.is_success:
        return response
    try:
        text = (await response.aread()).decode("utf-8", "replace")
    finally:
        await response.aclose()
    body: object = None
    with suppress(ValueError):
        body = json.loads(text)
    raise RefusedError(f"status {response.status_code}", body=body, status_code=response.status_code, response=response)


async def chunks(response: httpx2.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The answer's events, to [DONE] or its end; closes it. Raises RefusedError for one that tells an error, ValueError
    for what is no JSON, httpx2.HTTPError."""
    try:
        body = response.aiter_bytes()
        async for data in _data(body):
            if data.startswith(b"[DONE]"):
                async for _ in body:  # what is left unread would cost the connection
                    pass
                return
            chunk = json.loads(data)
            if not isinstance(chunk, dict):
                raise TypeError("no object")
            if chunk.get("error"):
                raise RefusedError("an error in the stream", body=chunk["error"])
            yield chunk
    finally:
        await response.aclose()


async def _data(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each event; other fields and comments are passed over, as is an event that is cut off."""
    waiting, lines = b"", list[bytes]()
    async for read in body:
        waiting += read
        if len(waiting) > _MOST_EVENT_BYTES:
            raise ValueError("an event without an end")
        *whole, waiting = waiting.split(b"\n")
        for line in whole:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                lines.append(line[5:].removeprefix(b" "))
            elif not line and lines:
                yield b"\n".join(lines)
                lines = []

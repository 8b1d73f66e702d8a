"""Triton's HTTP protocol, as far as a client of a served model speaks it.

The bytes of a request are tritonclient's. Its HTTP client is not used: it follows a redirect with the images to any
host, and takes a body of any size, unpacked where it comes compressed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bmrl.export.triton.client.answers import MOST_BYTES, Answer, answer_from_body
from bmrl.export.triton.contract import import_tritonclient

if TYPE_CHECKING:
    import aiohttp

__all__ = ["HTTPClient"]


class HTTPClient:
    """The methods of tritonclient's ``InferenceServerClient`` that a client of a served model needs.

    It belongs to the event loop in which it is made. Nothing here bounds the time of a call: its caller does.
    """

    def __init__(self, url: str) -> None:
        import aiohttp

        self._url = f"http://{url}"
        self._utils = import_tritonclient("utils")
        self._protocol = import_tritonclient("http").InferenceServerClient
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def get_model_config(self, model: str) -> Any:
        """Return a model's configuration, as JSON gives it."""
        body, _ = await self._ask("GET", f"v2/models/{quote(model)}/config")
        return json.loads(body)

    async def infer(self, model: str, inputs: list[Any], *, outputs: list[Any], request_id: str) -> Answer:
        """Return the answer to a request for inference."""
        body, json_size = self._protocol.generate_request_body(inputs, outputs, request_id)
        headers = {} if json_size is None else {"Inference-Header-Content-Length": str(json_size)}
        answer, header_length = await self._ask("POST", f"v2/models/{quote(model)}/infer", body, headers)
        return answer_from_body(answer, header_length)

    async def register_system_shared_memory(self, name: str, key: str, byte_size: int) -> None:
        """Make a region known to the server."""
        region = json.dumps({"key": key, "offset": 0, "byte_size": byte_size}).encode()
        await self._ask("POST", f"v2/systemsharedmemory/region/{quote(name)}/register", region)

    async def unregister_system_shared_memory(self, name: str) -> None:
        """Have the server release a region."""
        await self._ask("POST", f"v2/systemsharedmemory/region/{quote(name)}/unregister")

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[bytes, str | None]:
        """Return the body of an answer, and the length of the JSON at its start if there is more."""
        async with self._session.request(
            method, f"{self._url}/{path}", data=body or None, headers=headers, allow_redirects=False
        ) as response:
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":
                raise ValueError(f"a body of encoding {encoding!r}, which was not asked for")
            data = await _read(response)
            if response.status != 200:
                raise self._utils.InferenceServerException(_reason(response, data), status=str(response.status))
            return data, response.headers.get("Inference-Header-Content-Length")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for part in response.content.iter_any():
        data += part
        if len(data) > MOST_BYTES:
            raise ValueError(f"a body of more than {MOST_BYTES} bytes")
    return bytes(data)


def _reason(response: aiohttp.ClientResponse, body: bytes) -> str:
    """Return what the server says was wrong."""
    status = f"status {response.status}"
    if response.status // 100 == 3:
        return f"{status}, a redirect, which is not followed"
    try:
        return f"{status}, {json.loads(body)['error']}"
    except (KeyError, TypeError, ValueError, RecursionError):
        return f"{status} without a reason"

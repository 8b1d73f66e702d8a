#!/usr/bin/env python3
"""Ask a served bmrl model about a black image: exit code 0 if probabilities come back, else 1 and the reason on stderr.

The ensemble, where there is one, is asked about a picture's file too. Triton's own ``/v2/health/ready`` stays green
when the process that runs a Python model is dead, or when a model answers with nonsense. Needs only Python's
standard library.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import struct
import sys
import zlib
from contextlib import closing
from typing import Any

TOLERANCE = 1e-3


def main() -> int:
    """Run the check and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--address", default="127.0.0.1:8000", metavar="HOST:PORT", help="HTTP (default: %(default)s)")
    parser.add_argument("--model", default="bmrl", help="default: %(default)s")
    parser.add_argument("--ensemble", default="bmrl_attribute", help="asked if it is served (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=3.0, help="seconds for each of the three requests (default: %(default)s)"
    )
    options = parser.parse_args()
    answering = []
    for name, ask in ((options.model, probabilities), (options.ensemble, probabilities_of_file)):
        try:
            values = ask(options.address, name, options.timeout)
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            print(f"{options.address}: expected an answer of {name}, got {reason}", file=sys.stderr)
            return 1
        if values is None:
            continue
        if not (min(values, default=-1) >= 0 and abs(sum(values) - 1) <= TOLERANCE):  # also true of NaN
            print(f"{options.address}: expected probabilities with a sum of 1, got {values}", file=sys.stderr)
            return 1
        answering.append(name)
    print(f"{options.address}: {' and '.join(answering)} answer{'s' * (len(answering) == 1)}")
    return 0


def probabilities(address: str, model: str, timeout: float) -> list[float]:
    """Return the probabilities that the model gives for a black image."""
    with closing(http.client.HTTPConnection(address, timeout=timeout)) as connection:  # an open one delays a stop
        connection.request("GET", f"/v2/models/{model}")
        metadata = _answer(connection)
        image = metadata["inputs"][0]
        shape = [1, *image["shape"][1:]]
        pixels = bytes(math.prod(shape))
        images = {"name": image["name"], "shape": shape, "datatype": image["datatype"]}
        _request(connection, model, images, pixels, metadata["outputs"][0]["name"])
        values: list[float] = _answer(connection)["outputs"][0]["data"]
    return values


def probabilities_of_file(address: str, ensemble: str, timeout: float) -> list[float] | None:
    """Return the probabilities that the ensemble gives for a PNG file of one black pixel; None if it is not served."""
    file = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(4))), (b"IEND", b"")):
        file += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with closing(http.client.HTTPConnection(address, timeout=timeout)) as connection:
        image = {"name": "image", "shape": [len(file)], "datatype": "UINT8"}
        _request(connection, ensemble, image, file, "probabilities")
        try:
            values: list[float] = _answer(connection)["outputs"][0]["data"]
        except http.client.HTTPException as error:
            if str(error).startswith("404 ") and "unknown model" in str(error):
                return None
            raise
    return values


def _request(
    connection: http.client.HTTPConnection, model: str, tensor: dict[str, Any], data: bytes, output: str
) -> None:
    tensor["parameters"] = {"binary_data_size": len(data)}
    header = json.dumps({"inputs": [tensor], "outputs": [{"name": output}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    connection.request("POST", f"/v2/models/{model}/infer", header + data, headers)


def _answer(connection: http.client.HTTPConnection) -> Any:
    response = connection.getresponse()
    text = response.read()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"{response.status} {text.decode(errors='replace')}")
    return json.loads(text)


if __name__ == "__main__":
    raise SystemExit(main())

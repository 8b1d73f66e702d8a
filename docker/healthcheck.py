#!/usr/bin/env python3
"""Ask a served bmrl model about a black image: exit code 0 if probabilities come back, else 1 and the reason on stderr.

Triton's own ``/v2/health/ready`` stays green when the process that runs a Python model is dead, or when a model
answers with nonsense. Needs Python's standard library alone.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
from contextlib import closing
from typing import Any

TOLERANCE = 1e-3


def main() -> int:
    """Run the check and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--address", default="127.0.0.1:8000", metavar="HOST:PORT", help="HTTP (default: %(default)s)")
    parser.add_argument("--model", default="bmrl", help="default: %(default)s")
    parser.add_argument(
        "--timeout", type=float, default=4.0, help="seconds for each of the two requests (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        values = probabilities(options.address, options.model, options.timeout)
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"{options.address}: expected an answer of {options.model}, got {reason}", file=sys.stderr)
        return 1
    if not (min(values, default=-1) >= 0 and abs(sum(values) - 1) <= TOLERANCE):  # also true of NaN
        print(f"{options.address}: expected probabilities with a sum of 1, got {values}", file=sys.stderr)
        return 1
    print(f"{options.address}: {options.model} answers")
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
        images["parameters"] = {"binary_data_size": len(pixels)}
        header = json.dumps({"inputs": [images], "outputs": [{"name": metadata["outputs"][0]["name"]}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        connection.request("POST", f"/v2/models/{model}/infer", header + pixels, headers)
        values: list[float] = _answer(connection)["outputs"][0]["data"]
    return values


def _answer(connection: http.client.HTTPConnection) -> Any:
    response = connection.getresponse()
    text = response.read()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"{response.status} {text.decode(errors='replace')}")
    return json.loads(text)


if __name__ == "__main__":
    raise SystemExit(main())

"""Ask a Triton server about a photo with only Triton's client, from a program that has never heard of bmrl.

python examples/ask_a_server.py 127.0.0.1:8001 photo.jpg

The server serves a repository that ``bmrl export --format triton --ensemble`` wrote.
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc

MODEL = "bmrl_attribute"


def main(server: str, photo: str) -> None:
    """Print the most probable generator, its probability, and whether that is enough to call the image seen."""
    data = np.frombuffer(Path(photo).read_bytes(), np.uint8)
    image = tritonclient.grpc.InferInput("image", [len(data)], "UINT8")
    image.set_data_from_numpy(data)
    # class_count asks for the largest probabilities by name, each "probability:index:name"
    wanted = [
        tritonclient.grpc.InferRequestedOutput("probabilities", class_count=1),
        tritonclient.grpc.InferRequestedOutput("seen"),
    ]
    # gRPC would ask a proxy that the environment names, for this machine too
    settings = [("grpc.enable_http_proxy", 0)]
    with tritonclient.grpc.InferenceServerClient(server, channel_args=settings) as client:
        answer = client.infer(MODEL, [image], outputs=wanted, client_timeout=30)
    probability, _, name = answer.as_numpy("probabilities").item().decode().split(":", 2)
    verdict = "seen" if answer.as_numpy("seen").item() else "unseen"
    print(f"{photo}: {name}, {float(probability):.3f}, {verdict}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Compile every kernel offline, as each operator launches it, and tabulate what it costs; no GPU is needed.

    python benchmarks/kernel_resources.py [--out FOLDER] [--arch 80 90 100]

Launches are recorded rather than listed by hand: the operators and the losses run on tensors without data while a
recorder stands in for Triton's launcher, so that a kernel or a configuration that is shipped cannot be missed. The exit
code is 1 if a kernel spills registers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bmrl.losses._triton import launch as losses_launch
from bmrl.ops._triton import launch

ARCHITECTURES = (80, 90, 100)
_TYPES = {
    torch.uint8: "u8",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int64: "i64",
}
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Recorder:
    """Wraps a kernel, as ``torch.library.wrap_triton`` does, but remembers launches instead of making them."""

    def __init__(self) -> None:
        self.launches: dict[str, dict[str, Any]] = {}

    def __call__(self, kernel: Any) -> dict[Any, Any]:
        recorder = self

        class Launcher(dict):
            def __missing__(self, grid: Any) -> Any:
                return lambda *args, **options: recorder.record(kernel, args, options)

        return Launcher()

    def record(self, kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Specialize the arguments as Triton's launcher does."""
        signature, constants, divisible = {}, {}, []
        for index, parameter in enumerate(kernel.params):
            value = args[index] if index < len(args) else options[parameter.name]
            if parameter.is_constexpr or (isinstance(value, int) and value == 1):
                signature[parameter.name] = "constexpr"
                constants[index] = value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = "*" + _TYPES[value.dtype]
                divisible.append(index)
            elif isinstance(value, float):
                signature[parameter.name] = "fp32"
            else:
                signature[parameter.name] = "i32" if value < 2**31 else "i64"
                divisible += [index] if value % 16 == 0 else []
        launch_ = {
            "module": kernel.fn.__module__,
            "kernel": kernel.fn.__name__,
            "signature": signature,
            "constants": constants,
            "divisible": divisible,
            "num_warps": options["num_warps"],
        }
        self.launches.setdefault(json.dumps(launch_, sort_keys=True), launch_)


def shipped_launches() -> list[dict[str, Any]]:
    """Return one entry per specialization that operators and losses launch over dtypes, layouts and sizes."""
    recorder = Recorder()
    _record_operators(recorder)
    _record_losses(recorder)
    return list(recorder.launches.values())


def _record_losses(recorder: Recorder) -> None:
    kernels = ("pair_weights_kernel", "weighted_differences_kernel")
    originals = {name: getattr(losses_launch, name) for name in kernels}
    try:
        for name, kernel in originals.items():
            setattr(losses_launch, name, recorder(kernel))
        # Many tiles and few; a batch that 16 divides, and one that it does not; the smallest of everything.
        for batch, dim, num_generators in ((4096, 512, 7), (4095, 7, 7), (64, 128, 7), (33, 7, 7), (1, 1, 1)):
            y = torch.empty(batch, dim, device="meta")
            labels = torch.empty(batch, dtype=torch.int64, device="meta")
            related = torch.empty(num_generators, num_generators, dtype=torch.bool, device="meta")
            for with_gradient in (True, False):
                losses_launch.sum_of_pairs(y, labels, related, 0.7, with_gradient)
    finally:
        for name, kernel in originals.items():
            setattr(losses_launch, name, kernel)


def _record_operators(recorder: Recorder) -> None:
    original, launch.wrap_triton = launch.wrap_triton, recorder
    floats = (torch.float32, torch.float16, torch.bfloat16)
    try:
        for dtype in (torch.uint8, *floats):
            images = _images(dtype, 224, 224)
            for result in floats:
                launch.views(images, 112, 3.0, result, True)
            launch.views(images, 112, 3.0, torch.float32, False)
            launch.sobel(images, torch.float32 if dtype == torch.uint8 else dtype)
            launch.srm(images, 3.0, torch.float32 if dtype == torch.uint8 else dtype)
        for dtype in floats:
            images = _images(dtype, 224, 224)
            launch.sobel_backward(images[:, :1], images)
            launch.srm_backward(images, images, 3.0)
            indices = images.new_empty(32, dtype=torch.int64)
            noise = images[..., :112, :112]
            launch.views_backward(images, images[:, :1], noise, images, indices, 112, 3.0)
            launch.views_backward(None, images[:, :1], noise, images, indices, 112, 3.0)
        for images, patch_size in (
            (_images(torch.uint8, 128, 128), 128),  # the tiny preset
            (_images(torch.uint8, 128, 128), 64),
            (_images(torch.uint8, 224, 224, channels=1), 112),
            (_images(torch.uint8, 224, 224).to(memory_format=torch.channels_last), 112),
            (_images(torch.uint8, 223, 225), 37),  # nothing is aligned
            (_images(torch.uint8, 1080, 1920), 512),  # a patch of several tiles
            (_images(torch.float32, 1080, 1920), 512),
            (_images(torch.float32, 223, 225), 2),
        ):
            launch.views(images, patch_size, 3.0, torch.float32, True)
            launch.sobel(images, torch.float32)
            launch.srm(images, 3.0, torch.float32)
            if images.is_floating_point():
                launch.sobel_backward(images[:, :1], images)
                launch.srm_backward(images, images, 3.0)
    finally:
        launch.wrap_triton = original


def _images(dtype: torch.dtype, height: int, width: int, *, channels: int = 3) -> torch.Tensor:
    return torch.empty(32, channels, height, width, dtype=dtype, device="meta")


def compile_for(entry: dict[str, Any], architecture: int) -> dict[str, Any]:
    """Compile one specialization and read its machine code."""
    module = __import__(entry["module"], fromlist=["_"])
    kernel = getattr(module, entry["kernel"])
    source = ASTSource(
        fn=kernel,
        signature=entry["signature"],
        constexprs={(int(index),): value for index, value in entry["constants"].items()},
        attrs={(index,): [["tt.divisibility", 16]] for index in entry["divisible"]},
    )
    options = {"num_warps": entry["num_warps"]}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.TemporaryDirectory() as scratch:
        binary = Path(scratch, "kernel.cubin")
        binary.write_bytes(compiled.asm["cubin"])
        usage = _run("cuobjdump", "-res-usage", binary)
        code = _run("cuobjdump", "-sass", binary)
    registers, stack, shared = map(int, re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage).groups())
    instructions = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", code)
    counts = Counter(instructions)
    return {
        "kernel": entry["kernel"],
        "variant": _variant(entry),
        "architecture": f"sm_{architecture}",
        "warps": entry["num_warps"],
        "registers": registers,
        "stack_bytes": stack,
        "spill_instructions": sum(n for name, n in counts.items() if name.startswith(("LDL", "STL"))),
        "shared_bytes": shared,
        "instructions": len(instructions),
        "loads": {name: n for name, n in sorted(counts.items()) if name.startswith("LDG")},
        "stores": {name: n for name, n in sorted(counts.items()) if name.startswith("STG")},
        "largest_loop": _largest_loop(code),
    }


def _largest_loop(code: str) -> dict[str, int]:
    """Instructions of the longest loop of a machine code, counted by name; none if it has no loop."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);", code)
    bodies = [
        [name for at, name, _ in lines if int(target[1], 16) <= int(at, 16) <= int(end, 16)]
        for end, branch, operands in lines
        if branch.startswith("BRA") and (target := re.search(r"0x([0-9a-f]+)", operands))
        # A branch to itself only fills up the end of the code.
        if int(target[1], 16) < int(end, 16)
    ]
    return dict(Counter(max(bodies, key=len, default=[])).most_common())


def _run(tool: str, *arguments: Any) -> str:
    return subprocess.run([_TOOLS / tool, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def _variant(entry: dict[str, Any]) -> str:
    """What distinguishes the specialization, in words."""
    signature = entry["signature"]
    parameters = list(signature)
    constants = {parameters[int(index)]: value for index, value in entry["constants"].items()}
    pointers = {name: kind[1:] for name, kind in signature.items() if kind.startswith("*")}
    if "PER_THREAD" in constants:
        return _pair_variant(signature, constants, {parameters[index] for index in entry["divisible"]})
    source = pointers.get("images") or pointers.get("parts") or pointers["flows"]
    target = pointers.get("result") or pointers.get("edge") or pointers["noise"]
    names = ("ALIGNED", "APPEARANCE", "SELECT", "BACKWARD", "RICHEST", "GIVEN")
    flags = [name.lower() for name in names if constants.get(name) is True]
    if "stride_x" in constants or "images" not in pointers:
        flags.append("rows contiguous")
    tile = f"{constants['ROWS']} x {constants['COLUMNS']}"
    return f"{source} to {target}, {constants['CHANNELS']} channels, tile {tile}, {', '.join(flags)}"


def _pair_variant(signature: dict[str, str], constants: dict[str, Any], divisible: set[str]) -> str:
    words = [f"{constants['PER_THREAD']} x 4 sums per thread", f"{constants['UNROLL']} steps per iteration"]
    words += ["gradient"] * constants.get("GRADIENT", False)
    words += [f"{name} 1" for name in constants if name.islower()]
    odd = [name for name, kind in signature.items() if kind.startswith("i") and name not in divisible]
    return ", ".join([*words, f"any {' and '.join(odd)}"] if odd else words)


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table."""
    lines = [
        "| kernel | variant | GPU | registers | stack | shared | instructions | loads | stores |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        loads, stores = (
            ", ".join(f"{n} {name}" for name, n in row[kind].items()).replace("LDG.E", "LDG").replace("STG.E", "STG")
            for kind in ("loads", "stores")
        )
        lines.append(
            f"| {row['kernel']} | {row['variant']} | {row['architecture']} | {row['registers']} | {row['stack_bytes']} "
            f"| {row['shared_bytes']} | {row['instructions']} | {loads} | {stores} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Compile, print the table, write it to ``--out``; 1 if a kernel spills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for kernel_resources.json and .md")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, help="compute capabilities, e.g. 90")
    options = parser.parse_args(arguments)
    jobs = [(entry, architecture) for entry in shipped_launches() for architecture in options.arch]
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(compile_for, *zip(*jobs, strict=True)))
    rows.sort(key=lambda row: (row["kernel"], row["variant"], row["architecture"]))
    table = format_table(rows)
    print(table)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(row) for row in rows)  # one kernel per line, for readable diffs
        result = f'{{"triton": "{triton.__version__}", "torch": "{torch.__version__}", "kernels": [\n{lines}\n]}}\n'
        Path(options.out, "kernel_resources.json").write_text(result, encoding="utf-8")
        Path(options.out, "kernel_resources.md").write_text(
            f"Compiled with triton {triton.__version__}, without a GPU.\n\n{table}\n", encoding="utf-8"
        )
    spilling = [row for row in rows if row["stack_bytes"] or row["spill_instructions"]]
    for row in spilling:
        print(f"spills: {row['kernel']}, {row['variant']}, {row['architecture']}", file=sys.stderr)
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())

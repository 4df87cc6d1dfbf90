#!/usr/bin/python3
"""runc, with containers that take this machine for one whose CPUs have AVX2 and no AVX-512.

`LOCALKUBE_CPU=avx2` has containerd run this in place of runc. The numeric libraries of torch choose their code by the
variables below, the stages choose their precision by /proc/cpuinfo. A program that asks the CPU itself, as ONNX Runtime
does, still uses all that the CPU has.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

VARIABLES = {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
NEWER = ("avx512", "amx_", "avx_vnni")
CPU_INFO = "/proc/cpuinfo"


def main() -> None:
    arguments = sys.argv[1:]
    if "create" in arguments and "--bundle" in arguments:
        _narrow(Path(arguments[arguments.index("--bundle") + 1]))
    runc = shutil.which("runc")
    if runc is None:
        sys.exit("runc is not installed")
    os.execv(runc, ["runc", *arguments])


def _narrow(bundle: Path) -> None:
    shown = bundle / "cpuinfo"
    shown.write_text(without_newer(Path(CPU_INFO).read_text()))
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    names = tuple(f"{name}=" for name in VARIABLES)
    kept = [entry for entry in config["process"].get("env", []) if not entry.startswith(names)]
    config["process"]["env"] = kept + [f"{name}={value}" for name, value in VARIABLES.items()]
    mount = {"destination": CPU_INFO, "type": "bind", "source": str(shown), "options": ["bind", "ro"]}
    config["mounts"] = [*config.get("mounts", []), mount]
    path.write_text(json.dumps(config))


def without_newer(cpu_info: str) -> str:
    """The same text with the flags of AVX2 and older alone."""
    lines = cpu_info.splitlines(keepends=True)
    return "".join(_narrowed(line) if line.startswith("flags") else line for line in lines)


def _narrowed(line: str) -> str:
    name, _, flags = line.partition(":")
    return f"{name}: {' '.join(flag for flag in flags.split() if not flag.startswith(NEWER))}\n"


if __name__ == "__main__":
    main()

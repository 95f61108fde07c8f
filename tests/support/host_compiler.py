"""Compiles the kernels' CUDA C++ for this host, with whichever C++ compiler is there, once per source text.

A compiled text lies in the cache under the hash of everything that went into it, and is put there whole by a rename:
several test processes may want the same text at once.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SHIM_FOLDER: Final = Path(__file__).parent / "cuda_shim"
CACHE_FOLDER: Final = Path(__file__).parents[2] / "build" / "cuda_shim"
MISALIGNED_IS_A_TRAP: Final = ("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")  # A GPU faults there too.
RACES: Final = "-DSHIM_RACES"  # An option of a kernel text: what two threads touch between two barriers is an error.
# Each access calls a function; a volatile one another.
_WATCHING: Final = ("-fsanitize=thread", "--param", "tsan-distinguish-volatile=1")
FLAGS: Final = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",  # As --fmad=false: every operation rounds by itself.
    "-fno-fast-math",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-strict-aliasing",  # Kernels see one shared memory as floats, doubles and words, as CUDA lets them.
    "-Wall",
    "-Werror=return-type",
    "-Wno-unused",
    "-Wno-unused-function",
    "-Wno-unknown-pragmas",
)


@functools.cache
def host_compiler() -> tuple[str, ...]:
    """Return the command of a C++ compiler, or raise with what to install.

    PENSTOCK_HOST_COMPILER chooses one: g++, clang++ or zig.
    """
    chosen = os.environ.get("PENSTOCK_HOST_COMPILER", "")
    for name in ("g++", "clang++"):
        path = shutil.which(name)
        if path and chosen in {"", name}:
            return (path,)
    if chosen in {"", "zig"} and importlib.util.find_spec("ziglang"):
        # Not `c++`, which would build a C++ library first; and no instructions that only this processor has.
        return (sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline", "-fno-sanitize=undefined")
    raise RuntimeError(
        f"no C++ compiler for the host shim: install g++, clang++ or the wheel ziglang; chosen={chosen!r}"
    )


@functools.cache
def _identity() -> str:
    command = host_compiler()
    version = (*command[:4], "version") if "ziglang" in command else (*command, "--version")
    version = tuple(word for word in version if word != "cc")
    shown = subprocess.run(version, capture_output=True, text=True, check=True, timeout=60).stdout
    return "\0".join((*command, *FLAGS, shown))


def _text_of_shim() -> str:
    return "\0".join(path.read_text() for path in sorted(SHIM_FOLDER.iterdir()) if path.suffix in {".h", ".cpp"})


def _compile(text: str, before: Sequence[str], name: str) -> Path:
    key = hashlib.sha256("\0".join((_identity(), _text_of_shim(), *before, text)).encode()).hexdigest()[:24]
    built = CACHE_FOLDER / f"{name}-{key}.so"
    if built.exists():
        return built
    CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE_FOLDER) as folder:
        source, target = Path(folder) / f"{name}.cpp", Path(folder) / built.name
        source.write_text(text)
        if RACES in before:  # Linked by itself: what the compiler calls is the shim's, not the sanitizer's library.
            watched = Path(folder) / f"{name}.o"
            flags = [flag for flag in FLAGS if flag != "-shared"]
            _run([*host_compiler(), *flags, *_WATCHING, "-I", str(SHIM_FOLDER), *before, "-c", "-o", watched, source])
            _run([*host_compiler(), "-shared", "-o", target, watched])
        else:
            _run([*host_compiler(), *FLAGS, "-I", str(SHIM_FOLDER), *before, "-o", target, source])
        target.replace(built)
    return built


def _run(command: Sequence[str | Path]) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=170)
    if done.returncode:
        raise RuntimeError(f"the host compiler refuses the source: {' '.join(words)}\n{done.stderr[-6000:]}")


def watches_races() -> bool:
    """Return whether this compiler can call a function at each access as races.h wants it: g++ alone."""
    return Path(host_compiler()[0]).name == "g++"


def compile_runtime() -> Path:
    """Return the shared library of the stream, its launches and its failures."""
    return _compile((SHIM_FOLDER / "runtime.cpp").read_text(), (), "runtime")


def compile_kernels(source: str, options: Sequence[str]) -> Path:
    """Return the shared library of a kernel text; of the options, those of the preprocessor count."""
    definitions = [option for option in options if option.startswith(("-D", "-U"))]
    return _compile(source, (*MISALIGNED_IS_A_TRAP, *definitions, "-include", "device.h"), "kernels")

"""CUDA C++ to machine code by NVRTC alone: no driver, no card, no CuPy; and what each kernel takes of a multiprocessor.

For tests and benchmarks: the daemon compiles through CuPy, for the card at hand. What a kernel takes is read from what
the assembler says of it, since spills stand nowhere else. The library comes from the wheel nvidia-cuda-nvrtc, or from a
CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SUCCESS: Final = 0
_IN_WHEELS: Final = ("cu13/lib", "cuda_nvrtc/lib")  # Below the package nvidia: of CUDA 13, of CUDA 12.
_IN_TOOLKITS: Final = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")

_ENTRY: Final = re.compile(r"Compiling entry function '([^']+)'")
_FRAME: Final = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS: Final = re.compile(r"Used (\d+) registers")
_STACK: Final = re.compile(r"(\d+) bytes cumulative stack size")
_SHARED: Final = re.compile(r"(\d+) bytes smem")


class CompileError(Exception):
    """The source, or NVRTC itself, fails; the sentence holds the compiler's log."""


@dataclass(frozen=True)
class Cubin:
    """Machine code for one architecture, and what the compiler and the assembler said."""

    code: bytes
    log: str


@dataclass(frozen=True)
class Resources:
    """What one kernel takes: registers and stack of a thread, static shared memory of a block, spills in its code."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


def _candidates() -> Iterator[Path]:
    package = importlib.util.find_spec("nvidia")
    for root in (package.submodule_search_locations or ()) if package else ():
        for folder in _IN_WHEELS:
            yield Path(root) / folder
    for toolkit in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if toolkit:
            for folder in _IN_TOOLKITS:
                yield Path(toolkit) / folder


@functools.cache
def _library() -> Any:
    found = [path for folder in _candidates() for path in sorted(folder.glob("libnvrtc.so.*[0-9]"))]
    if not found:
        raise CompileError(
            "NVRTC is not there: install the wheel nvidia-cuda-nvrtc, or set CUDA_HOME to a CUDA toolkit"
        )
    library = ctypes.CDLL(str(found[0]))
    program, text, size = c_void_p, c_char_p, POINTER(c_size_t)
    for name, arguments in (
        ("nvrtcVersion", (POINTER(c_int), POINTER(c_int))),
        ("nvrtcCreateProgram", (POINTER(program), text, text, c_int, POINTER(text), POINTER(text))),
        ("nvrtcDestroyProgram", (POINTER(program),)),
        ("nvrtcCompileProgram", (program, c_int, POINTER(text))),
        ("nvrtcGetProgramLogSize", (program, size)),
        ("nvrtcGetProgramLog", (program, text)),
        ("nvrtcGetCUBINSize", (program, size)),
        ("nvrtcGetCUBIN", (program, text)),
    ):
        getattr(library, name).argtypes = arguments
    library.nvrtcGetErrorString.argtypes = (c_int,)
    library.nvrtcGetErrorString.restype = text
    return library


def _check(code: int, what: str) -> None:
    if code != _SUCCESS:
        raise CompileError(f"NVRTC failed to {what}: {_library().nvrtcGetErrorString(code).decode()}")


def nvrtc_version() -> str:
    """Return the version of NVRTC, such as ``13.5``."""
    major, minor = c_int(), c_int()
    _check(_library().nvrtcVersion(byref(major), byref(minor)), "say its version")
    return f"{major.value}.{minor.value}"


def _bytes_of(program: c_void_p, size_call: str, call: str) -> bytes:
    size_bytes = c_size_t()
    _check(getattr(_library(), size_call)(program, byref(size_bytes)), size_call)
    buffer = ctypes.create_string_buffer(size_bytes.value)
    _check(getattr(_library(), call)(program, buffer), call)
    return buffer.raw


def compile_cubin(source: str, architecture: str, options: Sequence[str] = ()) -> Cubin:
    """Compile a self-contained *source* for *architecture*, such as ``sm_90``.

    Raises:
        CompileError: with the log of the compiler.
    """
    library = _library()
    program = c_void_p()
    _check(
        library.nvrtcCreateProgram(byref(program), source.encode(), b"penstock.cu", 0, None, None), "take the source"
    )
    try:
        words = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *options]
        code = library.nvrtcCompileProgram(program, len(words), (c_char_p * len(words))(*[w.encode() for w in words]))
        log = _bytes_of(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
        if code != _SUCCESS:
            reason = library.nvrtcGetErrorString(code).decode()
            raise CompileError(f"NVRTC {nvrtc_version()} refuses the source: {reason}; {' '.join(words)}\n{log}")
        return Cubin(_bytes_of(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"), log)
    finally:
        library.nvrtcDestroyProgram(byref(program))


def resources(cubin: Cubin) -> dict[str, Resources]:
    """Return what each kernel of *cubin* takes, by name; functions that it calls count with it."""
    taken: dict[str, Resources] = {}
    name, frame_bytes, spill_bytes = "", 0, 0
    for line in cubin.log.splitlines():
        if entry := _ENTRY.search(line):
            name, frame_bytes, spill_bytes = entry[1], 0, 0
        elif frame := _FRAME.search(line):
            frame_bytes = max(frame_bytes, int(frame[1]))
            spill_bytes += int(frame[2]) + int(frame[3])
        elif used := _REGISTERS.search(line):
            stack, shared = _STACK.search(line), _SHARED.search(line)
            stack_bytes = max(frame_bytes, int(stack[1]) if stack else 0)
            taken[name] = Resources(int(used[1]), stack_bytes, spill_bytes, int(shared[1]) if shared else 0)
    if not taken:
        raise CompileError(f"the assembler named no kernel; its log:\n{cubin.log}")
    return taken

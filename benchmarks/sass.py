"""Registers, stack and instructions of compiled kernels, read with the tools that Triton has."""

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton


@dataclass(frozen=True)
class Kernel:
    """What one kernel takes."""

    name: str
    registers: int
    stack: int  # bytes; holds spilled registers, so 0 means none
    instructions: int  # without the NOPs that pad it


def kernels(cubin: bytes) -> list[Kernel]:
    """All kernels of a cubin."""
    usage = _run("cuobjdump", "--dump-resource-usage", cubin)
    found = []
    for name, code in _sections(cubin):
        counts = re.search(rf"Function {re.escape(name)}:\s+(.*)", usage)[1]
        registers, stack = (int(re.search(rf"{key}:(\d+)", counts)[1]) for key in ("REG", "STACK"))
        words = (struct.unpack_from("<H", code, i)[0] & 0xFFF for i in range(0, len(code), 16))
        found.append(Kernel(name, registers, stack, sum(word != _NOP for word in words)))
    return found


_NOP = 0x918  # the opcode, in the low 12 bits of an instruction's 16 bytes


def _sections(cubin: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and machine code of every kernel: the sections .text.NAME of the ELF file."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    entry, sections, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + entry * i) for i in range(sections)]
    for start, _, _, _, offset, size in headers:
        start += headers[names][4]
        name = cubin[start : cubin.index(b"\0", start)].decode()
        if name.startswith(".text."):
            yield name.removeprefix(".text."), cubin[offset : offset + size]


@dataclass(frozen=True)
class Listing:
    """One kernel disassembled: instructions and, between them, labels such as ".L_x_1:".

    Only up to the last EXIT: after it stand padding and subroutines for rare operands.
    """

    name: str
    code: tuple[str, ...]

    @property
    def once(self) -> int:
        """Instructions, whatever repeats or is skipped."""
        return _count(self.code)

    def loops(self) -> list[tuple[str, ...]]:
        """The body of every loop: from a label back to which a branch goes, to that branch."""
        places = {line.removesuffix(":"): i for i, line in enumerate(self.code) if _is_label(line)}
        found = []
        for i, line in enumerate(self.code):
            target = re.search(r"\bBRA\b.*`\((\.L_\w+)\)", line)
            if target and places.get(target[1], i) < i:
                found.append(self.code[places[target[1]] : i + 1])
        return found

    def executed(self, trips: int = 1, loads: int | None = None) -> int:
        """Instructions that a warp issues.

        Every branch is taken to fall through, which overstates code that a warp skips. `trips`: of
        the loop, of which there may be one; `loads`: global loads of one trip, from which it shows
        how often the compiler unrolled the loop.
        """
        loops = self.loops()
        if len(loops) > 1:
            raise ValueError(f"{self.name} has {len(loops)} loops, whose trips are not known")
        total = self.once
        for body in loops:
            unrolled = max(1, sum("LDG" in line for line in body) // loads) if loads else 1
            total += round(_count(body) * (trips / unrolled - 1))
        return total


def listings(cubin: bytes) -> list[Listing]:
    """All kernels of a cubin, disassembled; takes about a second for each."""
    assembly = _run("nvdisasm", "-c", cubin)
    found = []
    section = r"^\s*\.section\s+\.text\.(\S+?),(.*?)(?=^\s*\.section\s|\Z)"
    for name, text in re.findall(section, assembly, re.M | re.S):
        lines = re.findall(r"^(\.L_\w+:)|/\*[0-9a-f]{4,}\*/\s+(.*?);", text, re.M)
        code = [label or instruction for label, instruction in lines]
        last = max(i for i, line in enumerate(code) if re.search(r"\bEXIT\b", line))
        found.append(Listing(name, tuple(code[: last + 1])))
    return found


def _count(code: tuple[str, ...]) -> int:
    return sum(not _is_label(line) and line.strip() != "NOP" for line in code)


def _is_label(line: str) -> bool:
    return line.startswith(".L_")


def _run(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [getattr(triton.knobs.nvidia, tool).path, option, path]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

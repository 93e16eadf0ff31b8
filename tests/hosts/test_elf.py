"""What libraries ask of the system that loads them, read from real ones."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from edgekit.errors import CompileError, MismatchError, UnavailableError
from edgekit.hosts import elf

CROSS, NATIVE = "aarch64-linux-gnu-g++", "g++"
SOURCE = """
#include <condition_variable>
#include <mutex>
extern "C" __attribute__((visibility("default"))) void shown(std::condition_variable& ready,
                                                             std::mutex& mutex) {
  std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
  ready.wait(lock);
}
extern "C" void hidden() {}
"""


def build(folder: Path, compiler: str, *flags: str, source: str = SOURCE) -> Path:
    (folder / "a.cpp").write_text(source)
    out = folder / "liba.so"
    command = [compiler, "-O1", "-fPIC", "-fvisibility=hidden", *flags, str(folder / "a.cpp"), "-o", str(out)]
    subprocess.run(command, check=True)
    return out


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a compiler whose C library is 2.34 or newer, which has the symbols of threads itself."""
    return build(tmp_path_factory.mktemp("arm"), CROSS, "-shared")


def test_a_library_of_another_machine(arm):
    library = elf.read(arm)
    assert library.arch == "aarch64"
    assert {"libstdc++.so.6", "libc.so.6"} <= set(library.needed)
    assert "shown" in library.exported and "hidden" not in library.exported
    lock = next(symbol for symbol in library.wanted if symbol.name == "pthread_mutex_trylock")
    assert str(lock) == "pthread_mutex_trylock@GLIBC_2.34" and lock.library == "libc.so.6"
    wait = next(symbol for symbol in library.wanted if "condition_variable4wait" in symbol.name)
    assert wait.version == "GLIBCXX_3.4.30" and wait.library == "libstdc++.so.6"
    assert library.newest() == "2.34" and library.newest("GLIBCXX") == "3.4.30"
    assert library.newest("GCC_NONE") == ""


def test_a_library_of_this_machine(tmp_path):
    library = elf.read(
        build(tmp_path, NATIVE, "-shared", source="extern int there; int* f() { return &there; }")
    )
    assert library.arch == platform.machine()
    there = next(symbol for symbol in library.wanted if symbol.name == "there")
    assert str(there) == "there" and there.library == "" == there.version


def test_versions_are_numbers_not_words():
    library = elf.Library("x", (), (elf.Symbol("a", "GLIBC_2.9"), elf.Symbol("b", "GLIBC_2.17")), ())
    assert library.newest() == "2.17"


@pytest.mark.parametrize("glibc", ["", "2.35", "2.36", "2.39"])
def test_what_loads_passes(arm, glibc):
    elf.check(arm, "aarch64", glibc)


@pytest.mark.parametrize("glibc", ["2.17", "2.28", "2.31", "2.34"])
def test_what_an_older_system_lacks_is_named(arm, glibc):
    """That with 2.34 has the C library it takes, and a C++ library that is older."""
    with pytest.raises(MismatchError) as caught:
        elf.check(arm, "aarch64", glibc)
    message = caught.value.message
    assert f"liba.so does not load with glibc {glibc}: want symbols of GLIBC_{glibc}, GLIBCXX_3.4." in message
    assert "condition_variable4wait" in message
    assert ("pthread_mutex_trylock@GLIBC_2.34" in message) == (glibc != "2.34")
    assert caught.value.hint and "edgekit[cross]" in caught.value.hint


def test_another_machine_is_named(arm):
    with pytest.raises(MismatchError, match=r"liba\.so is for another machine: want x86_64, got aarch64"):
        elf.check(arm, "x86_64")


@pytest.mark.parametrize("flags", [("-c",), ()], ids=["object", "program without symbols"])
def test_what_is_no_library_is_refused(tmp_path, flags):
    source = "int main() {}"
    other = build(tmp_path, CROSS, *(flags or ("-static",)), source=source)
    with pytest.raises(CompileError, match="not a shared library"):
        elf.read(other)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n" * 99], ids=["empty", "cut", "text"])
def test_what_is_no_elf_file_is_refused(tmp_path, content):
    path = tmp_path / "x.so"
    path.write_bytes(content)
    assert elf.arch_of(content) is None
    with pytest.raises(CompileError, match="not a shared library"):
        elf.read(path)


def test_the_head_of_a_file_tells_the_machine(arm):
    head = bytearray(arm.read_bytes()[:20])
    assert elf.arch_of(bytes(head)) == "aarch64"
    head[18:20] = (62).to_bytes(2, "little")
    assert elf.arch_of(bytes(head)) == "x86_64"
    head[18:20] = (7777).to_bytes(2, "little")
    assert elf.arch_of(bytes(head)) == "machine 7777"
    head[5], head[18:20] = 2, (183).to_bytes(2, "big")
    assert elf.arch_of(bytes(head)) == "aarch64"
    assert elf.arch_of(bytes(head[:19])) is None


def test_without_the_package_the_install_line_is_told(arm, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "elftools", None)
    with pytest.raises(UnavailableError) as caught:
        elf.read(arm)
    assert caught.value.hint == "pip install 'edgekit[cross]'"

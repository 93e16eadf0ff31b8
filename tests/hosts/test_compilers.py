"""Which compiler is chosen for a platform, and that what it links loads there."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.errors import MismatchError, UnavailableError
from edgekit.hosts import build, compilers, elf
from edgekit.hosts.compilers import Platform
from edgekit.registry import Requirement

HERE = platform.machine()
OTHER = "aarch64" if HERE == "x86_64" else "x86_64"
# Takes from the C++ library what is only there from GCC 12 on, and throws.
SOURCE = """
#include <condition_variable>
#include <stdexcept>
#include <string>
extern "C" __attribute__((visibility("default"))) int caught(int value) {
  try {
    if (value) throw std::runtime_error(std::to_string(value));
  } catch (const std::exception& error) {
    return static_cast<int>(std::string(error.what()).size());
  }
  return 0;
}
extern "C" __attribute__((visibility("default"))) void wait(std::condition_variable& c, std::mutex& m) {
  std::unique_lock<std::mutex> lock(m, std::try_to_lock);
  c.wait(lock);
}
"""


@pytest.fixture
def no_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "ZIG", Requirement("no_such_package", "ziglang", "cross"))


def linked(wanted: Platform, folder: Path, *, gnu: bool = False) -> Path:
    compiler = compilers.compiler(wanted, gnu=gnu)
    source, result = folder / "a.cpp", folder / "a.o"
    source.write_text(SOURCE)
    flags = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden"]
    subprocess.run([*compiler.command, *flags, "-c", str(source), "-o", str(result)], check=True)
    build.link([result], folder / "liba.so", wanted, gnu=gnu)
    return folder / "liba.so"


def test_this_machine_is_one_with_its_c_library_or_an_older_one_asked_for():
    assert Platform.here().is_here
    assert Platform(HERE, platform.libc_ver()[1]).is_here and Platform(HERE, "99.0").is_here
    assert not Platform(HERE, "2.9").is_here and not Platform(OTHER).is_here
    assert str(Platform("aarch64", "2.31")) == "aarch64-glibc2.31" and str(Platform("aarch64")) == "aarch64"


def test_this_machine_s_compiler_is_what_cxx_says(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    assert compilers.compiler(Platform.here()).command == ("g++",)
    monkeypatch.setenv("CXX", "g++ -pipe")
    assert compilers.compiler(Platform.here()).command == ("g++", "-pipe")
    assert compilers.compiler(Platform(OTHER)).command[0] != "g++"


def test_zig_builds_for_other_machines_and_older_systems():
    assert compilers.compiler(Platform(HERE, "2.17")).command[-1] == f"{HERE}-linux-gnu.2.17"
    chosen = compilers.compiler(Platform("aarch64", "2.31") if HERE != "aarch64" else Platform(OTHER, "2.31"))
    assert chosen.is_zig and chosen.command[-1].endswith("-linux-gnu.2.28")
    newer = compilers.compiler(Platform(OTHER, "2.39"))
    assert newer.identity == compilers.compiler(Platform(OTHER)).identity, "one build for all newer systems"


def test_a_vendor_s_c_library_of_gnu_s_keeps_zig_out(no_zig):
    assert not compilers.compiler(Platform(OTHER, "2.31"), gnu=True).is_zig


def test_without_zig_a_cross_compiler_serves(no_zig, monkeypatch):
    assert compilers.compiler(Platform("aarch64", "2.31")).command == ("aarch64-linux-gnu-g++",)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError) as caught:
        compilers.compiler(Platform("aarch64", "2.31"))
    assert caught.value.message == (
        "building a library for aarch64-glibc2.31 wants a C++ compiler, and there is no aarch64-linux-gnu-g++"
    )
    assert caught.value.hint == "apt-get install g++-aarch64-linux-gnu, or pip install 'edgekit[cross]'"
    with pytest.raises(UnavailableError) as caught:
        compilers.compiler(Platform("x86_64", "2.9"), gnu=True)
    assert caught.value.hint in ("apt-get install g++", "apt-get install g++-x86-64-linux-gnu")


def test_zig_links_for_the_oldest_jetpack(tmp_path):
    """Against its own C++ library, of which it shows nothing."""
    library = elf.read(linked(Platform("aarch64", "2.31"), tmp_path))
    assert library.arch == "aarch64"
    assert not {name for name in library.needed if "stdc++" in name or "gcc" in name}
    assert sorted(library.exported) == ["caught", "wait"]


def test_a_cross_compiler_links_for_a_system_like_its_own(no_zig, tmp_path):
    library = elf.read(linked(Platform("aarch64", "2.39"), tmp_path))
    assert set(library.needed) <= {"libc.so.6", "libm.so.6"}
    assert elf.read(linked(Platform("aarch64", "2.39"), tmp_path, gnu=True)).newest("GLIBCXX") == "3.4.30"


def test_what_does_not_load_there_is_refused_when_it_is_linked(no_zig, tmp_path):
    with pytest.raises(MismatchError, match=r"liba\.so does not load with glibc 2\.31: .*@GLIBC_2\.3"):
        linked(Platform("aarch64", "2.31"), tmp_path)
    with pytest.raises(MismatchError, match=r"condition_variable4wait.*@GLIBCXX_3\.4\.30"):
        linked(Platform("aarch64", "2.31"), tmp_path, gnu=True)


@pytest.mark.skipif(sys.platform != "linux", reason="loads a library of this machine: want Linux")
def test_a_library_for_an_older_system_runs_on_this_one(tmp_path):
    library = ctypes.CDLL(str(linked(Platform(HERE, "2.17"), tmp_path)))
    assert [library.caught(value) for value in (0, 7, -123)] == [0, 1, 4]

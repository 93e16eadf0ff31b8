"""The table of JetPacks: what it says, and which release an installed Jetson Linux is."""

from __future__ import annotations

import pytest

from edgekit import jetpack
from edgekit.errors import TargetError
from edgekit.jetpack import JETPACKS, find, of_l4t


def test_versions() -> None:
    assert {v: (j.tensorrt, j.cuda, j.glibc, j.python) for v, j in JETPACKS.items()} == {
        "5.1": ("8.5.2", "11.4", "2.31", "3.8"),
        "6.0": ("8.6.2", "12.2", "2.35", "3.10"),
        "6.1": ("10.3", "12.6", "2.35", "3.10"),
        "6.2": ("10.3", "12.6", "2.35", "3.10"),
        "7.0": ("10.13", "13.0", "2.39", "3.12"),
        "7.1": ("10.13", "13.0", "2.39", "3.12"),
        "7.2": ("10.16.2", "13.2.1", "2.39", "3.12"),
    }


@pytest.mark.parametrize("version", JETPACKS)
def test_each_is_complete(version: str) -> None:
    one = JETPACKS[version]
    assert one.version == version and one.sources and one.releases
    assert all(release.startswith(version) for release in one.releases)
    assert all(getattr(one, name) for name in one.unverified)
    assert one.software["jetpack"] == version
    assert one.software["l4t"] in next(reversed(one.releases.values()))


def test_names_of_releases() -> None:
    assert find("6.2.1") is JETPACKS["6.2"] and find("5.1.6") is JETPACKS["5.1"]
    for wrong in ("6", "6.2.9", "", "latest"):
        with pytest.raises(TargetError, match="unknown JetPack"):
            find(wrong)


@pytest.mark.parametrize(
    ("l4t", "release", "version"),
    [
        ("35.3.1", "5.1.1", "5.1"),
        ("35.6.2", "5.1.5", "5.1"),
        ("36.3.0", "6.0", "6.0"),
        ("36.4.0", "6.1", "6.1"),
        ("36.4.7", "6.2.1", "6.2"),
        ("38.2.1", "7.0", "7.0"),
        ("39.2.0", "7.2", "7.2"),
        # Not in the table: of the line of the nearest older one.
        ("36.4.9", "6.2", "6.2"),
        ("36.3.1", "6.0", "6.0"),
        ("39.2.1", "7.2", "7.2"),
    ],
)
def test_jetson_linux(l4t: str, release: str, version: str) -> None:
    assert of_l4t(l4t) == (release, JETPACKS[version])


@pytest.mark.parametrize("l4t", ["32.7.1", "36.2.0", "40.0.0", "", "R36", "x.y.z", "9" * 5000])
def test_a_jetson_linux_of_no_known_jetpack(l4t: str) -> None:
    assert of_l4t(l4t) is None


def test_no_jetson_linux_is_of_two() -> None:
    systems = [s for one in jetpack.JETPACKS.values() for some in one.releases.values() for s in some]
    assert len(systems) == len(set(systems))

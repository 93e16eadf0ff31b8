"""``edgekit targets``: the known devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from edgekit import schema, target
from edgekit.cli import args, output
from edgekit.errors import UsageError
from edgekit.jetpack import JETPACKS
from edgekit.target import PowerMode, Precision, Target

_DOUBT = " ?"
_FIGURES = {
    "watts": "watts",
    "multiprocessors": "multiprocessors",
    "gpu_clock_hz": "GPU clock",
    "memory_clock_hz": "memory clock",
    "bandwidth_bytes_per_s": "bandwidth",
    "dla_clock_hz": "DLA clock",
    "int8_ops_per_s": "int8 ops/s",
    "dla_int8_ops_per_s": "DLA int8 ops/s",
}
_VERSIONS = ("tensorrt", "cuda", "cudnn", "ubuntu", "glibc", "python")
_LISTED: tuple[Precision, ...] = ("float32", "float16", "int8")


def complete_targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names and aliases that begin with what was typed."""
    names = (name for known in target.known().values() for name in (known.name, *known.aliases))
    return [name for name in names if name.startswith(incomplete)]


@args.command("targets")
@click.argument("name", required=False, shell_complete=complete_targets)
@args.jetpack_option
def command(name: str | None, jetpack: str | None, as_json: bool) -> None:
    """List the known devices, or show one.

    NAME is a name, an alias, or the path of a TOML file of your own. A question mark stands after a figure
    that comes from no primary source and no measurement of ours.
    """
    if jetpack and not name:
        raise UsageError(
            "--jetpack wants the name of a Jetson", hint=f"edgekit targets jetson --jetpack {jetpack}"
        )
    if name:
        found = args.target(name, jetpack)
        if as_json:
            output.document("targets", {"target": found})
        else:
            _show(found)
    elif as_json:
        output.document("targets", {"targets": list(target.known().values())})
    else:
        _list(target.known())


def _list(known: Mapping[str, Target]) -> None:
    from edgekit.backends import BACKENDS

    rows: output.Rows = [
        ("name", "device", "memory", "bandwidth", *(f"{p} ops/s" for p in _LISTED), "compiled by")
    ]
    for item in known.values():
        peaks = [(f"peak_ops_per_s.{p}", item.peak_ops_per_s.get(p)) for p in _LISTED]
        ready = [name for name in item.backends if name in BACKENDS]
        rows.append(
            (
                " = ".join((item.name, *item.aliases)),
                item.title,
                _marked(item, "memory_bytes", item.memory_bytes),
                _marked(item, "bandwidth_bytes_per_s", item.bandwidth_bytes_per_s),
                *("-" if peak is None else _marked(item, key, peak) for key, peak in peaks),
                ", ".join(ready) or f"not yet: needs {', '.join(item.backends)}",
            )
        )
    output.table(rows)
    output.say()
    output.say(
        f"Peaks are dense. '{_DOUBT.strip()}': unverified. edgekit targets NAME shows all that is known."
    )


def _show(item: Target) -> None:
    plain = schema.encode(item)
    lists = {key: plain.pop(key, []) for key in ("sources", "unverified", "power_modes")}
    output.table([("key", "value"), *((key, _marked(item, key, value)) for key, value in _flat(plain))])
    output.say()
    if item.power_modes:
        _power_modes(item)
    if item.jetpacks:
        _jetpacks(item)
    for source in lists["sources"]:
        output.say(f"source: {source}")
    if lists["unverified"]:
        output.say(f"'{_DOUBT.strip()}': comes from no primary source and no measurement of ours")


def _power_modes(item: Target) -> None:
    """A table of the modes, with a column for each figure that any of them states."""

    def cell(mode: PowerMode, figure: str) -> str:
        value = getattr(mode, figure)
        return "-" if value is None else _marked(item, f"power_modes.{mode.name}.{figure}", value)

    figures = [f for f in _FIGURES if any(getattr(mode, f) is not None for mode in item.power_modes)]
    rows: output.Rows = [("power mode", *(_FIGURES[figure] for figure in figures))]
    rows += [(mode.name, *(cell(mode, figure) for figure in figures)) for mode in item.power_modes]
    output.table(rows)
    output.say(
        "The number of a mode differs between releases: sudo nvpmodel -q says the names on the device."
    )
    output.say()


def _jetpacks(item: Target) -> None:
    """A table of what each JetPack of a module brings."""
    rows: output.Rows = [
        ("JetPack", "Jetson Linux", "TensorRT", "CUDA", "cuDNN", "Ubuntu", "glibc", "Python", "")
    ]
    for version in item.jetpacks:
        one = JETPACKS[version]
        linux = ", ".join(system for systems in one.releases.values() for system in systems)
        versions = {name: getattr(one, name) for name in _VERSIONS}
        marks = {name: _DOUBT if name in one.unverified else "" for name in versions}
        cells = [f"{versions[name]}{marks[name]}" if versions[name] else "-" for name in versions]
        chosen = "compiled for" if version == item.software["jetpack"] else ""
        rows.append((version, linux, *cells, chosen))
    output.table(rows)
    output.say("Another one: --jetpack VERSION.")
    output.say()


def _flat(plain: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and their values."""
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _marked(item: Target, key: str, value: object) -> str:
    return _readable(key, value) + (_DOUBT if item.is_unverified(key) else "")


def _readable(key: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_readable(key, part) for part in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if key.endswith("bytes_per_s"):
        return f"{value / 1e9:.4g} GB/s"
    if key.endswith("ops_per_s") or key.startswith("peak_ops_per_s."):
        return f"{value / 1e12:.3g} T" if value >= 1e12 else f"{value / 1e9:.3g} G"
    if key.endswith("_hz"):
        return f"{value / 1e6:.4g} MHz"
    if "bytes" in key.rpartition(".")[2]:
        return output.size(value)
    return f"{value:g}"

"""``edgekit targets``: the known devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from edgekit import schema, target
from edgekit.cli import args, output
from edgekit.target import Precision, Target

_DOUBT = " ?"
_LISTED: tuple[Precision, ...] = ("float32", "float16", "int8")


def complete_targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names and aliases that begin with what was typed."""
    names = (name for known in target.known().values() for name in (known.name, *known.aliases))
    return [name for name in names if name.startswith(incomplete)]


@args.command("targets")
@click.argument("name", required=False, shell_complete=complete_targets)
def command(name: str | None, as_json: bool) -> None:
    """List the known devices, or show one.

    NAME is a name, an alias, or the path of a TOML file of your own. A question mark stands after a figure
    that comes from no primary source and no measurement of ours.
    """
    if name:
        found = target.find(name)
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
    lists = {key: plain.pop(key, []) for key in ("sources", "unverified")}
    output.table([("key", "value"), *((key, _marked(item, key, value)) for key, value in _flat(plain))])
    output.say()
    for source in lists["sources"]:
        output.say(f"source: {source}")
    if lists["unverified"]:
        output.say(f"'{_DOUBT.strip()}': comes from no primary source and no measurement of ours")


def _flat(plain: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and their values; items of a list of tables go by their name."""
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for table in value:
                rest = {k: v for k, v in table.items() if k != "name"}
                yield from _flat(rest, f"{prefix}{key}.{table['name']}.")
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

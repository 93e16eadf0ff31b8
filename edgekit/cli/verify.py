"""``edgekit verify``: every byte of a bundle against its manifest."""

from __future__ import annotations

from pathlib import Path

from edgekit.cli import args, output
from edgekit.errors import CorruptError


@args.command("verify")
@args.bundle_argument
def command(bundle: Path, as_json: bool) -> None:
    """Check that every byte of a bundle is what its manifest says.

    Exit code 5 where it is not. The digests find damage; they do not say who wrote the bundle.
    """
    from edgekit import bundle as bundles

    found = bundles.verify(bundle)
    if not found.passed:
        damaged = [member.name for member in found.members if not member.intact]
        raise CorruptError(
            f"{len(damaged)} of {len(found.members)} files differ from their digests: {', '.join(damaged)}",
            where=str(bundle),
            hint="copy the bundle again, or compile it again",
        )
    if as_json:
        output.document(
            "verify",
            {"bundle": str(bundle), "identity": found.identity, "intact": True, "members": found.members},
        )
        return
    rows: output.Rows = [("file", "size", "SHA-256", "")]
    rows += [(m.name, output.size(m.size_bytes), m.sha256, "intact") for m in found.members]
    output.table(rows)
    output.say(f"{bundle}: intact; identity {found.identity}")

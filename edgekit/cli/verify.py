"""``edgekit verify``: every byte of a bundle against its manifest, and its results on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import args, output
from edgekit.errors import CorruptError, UsageError

if TYPE_CHECKING:
    from edgekit.proof import Proof

_FAILED = 1


@args.command("verify")
@args.bundle_argument
@click.option("--run", "run", is_flag=True, help="Also run it here, on the golden case where it holds one.")
@args.network_option
@args.threads_option
def command(bundle: Path, run: bool, network: str, threads: int, as_json: bool) -> int:
    """Check that every byte of a bundle is what its manifest says.

    Exit code 5 where it is not. The digests find damage; they do not say who wrote the bundle.

    With --run the machine proves the bundle too: its network runs here on the golden case, inputs and results
    that a bundle for another machine holds, and has to keep its limits: exit code 1 where it does not.
    """
    from edgekit import bundle as bundles

    if network and not run:
        raise UsageError("--network is for --run", hint=f"edgekit verify {bundle} --run --network {network}")
    found = bundles.verify(bundle)
    if not found.passed:
        damaged = [member.name for member in found.members if not member.intact]
        raise CorruptError(
            f"{len(damaged)} of {len(found.members)} files differ from their digests: {', '.join(damaged)}",
            where=str(bundle),
            hint="copy the bundle again, or compile it again",
        )
    proof = _prove(bundle, network, threads) if run else None
    if as_json:
        checked = {
            "bundle": str(bundle),
            "identity": found.identity,
            "intact": True,
            "members": found.members,
        }
        proved = {"proof": proof, "proved": proof.passed} if proof else {}
        output.document("verify", {**checked, **proved})
    else:
        rows: output.Rows = [("file", "size", "SHA-256", "")]
        rows += [(m.name, output.size(m.size_bytes), m.sha256, "intact") for m in found.members]
        output.table(rows)
        output.say(f"{bundle}: intact; identity {found.identity}")
        if proof:
            _show(proof)
    return 0 if proof is None or proof.passed else _FAILED


def _prove(bundle: Path, network: str, threads: int) -> Proof:
    from edgekit import bundle as bundles
    from edgekit import proof
    from edgekit.cli.progress import Progress

    with Progress() as progress:
        progress("run")
        return proof.prove(bundles.read(bundle), network=network, threads=threads)


def _show(proof: Proof) -> None:
    for name, reason in proof.passed_over.items():
        output.say(f"{name} does not run here: {reason}")
    times = f"loaded in {output.seconds(proof.load_s)}, ran in {output.seconds(proof.run_s)}"
    if proof.accuracy is None:
        output.say(f"{proof.network} runs here: {times}. The bundle holds no golden case to compare with.")
        return
    for tensor in proof.accuracy.tensors:
        figures = f"differs by {tensor.max_abs_error:.3g} at most, {output.decibels(tensor.snr_db)}"
        output.say(f"{tensor.name}: {figures} from {proof.accuracy.reference}")
    for failure in proof.accuracy.failures:
        output.say(f"failed: {failure}")
    verdict = "keeps the golden case's limits" if proof.passed else "does not keep the golden case's limits"
    output.say(f"{proof.network} {verdict} here: {times}")

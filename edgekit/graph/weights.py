"""Weight files, looked at before torch is loaded.

``torch.load(weights_only=True)`` is what keeps a pickle from running (:mod:`edgekit.torch.source`). This
look refuses at once, and by name, what that would refuse after seconds of imports.
"""

from __future__ import annotations

import pickletools
import stat
import zipfile
from pathlib import Path

from edgekit.errors import ModelError

_LARGEST_PICKLE_BYTES = 16 << 20
_SAFE_MODULES = (
    "torch",
    "torch._utils",
    "torch.storage",
    "torch.nn.parameter",
    "torch._tensor",
    "collections",
)
_SAFE_BUILTINS = {"builtins set", "builtins frozenset", "_codecs encode", "builtins bytearray"}
_OTHER_CALLS = {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
_RESAVE = "torch.save(model.state_dict(), 'model.pt') with torch 1.6 or later"


def check(path: Path) -> None:
    """Refuse a file that does not hold plain weights.

    Raises:
        ModelError: Missing, of another format, damaged, or a pickle that wants to call something.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"cannot read the weights: {error.strerror}", where=str(path)) from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelError("the weights are no regular file", where=str(path))
    if path.suffix == ".safetensors":
        _check_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        _check_pickle(path)
    else:
        raise ModelError(
            f"weights of an unknown kind: want .safetensors, .pt or .pth, got {path.suffix or 'no suffix'!r}",
            where=str(path),
            hint="safetensors.torch.save_file(model.state_dict(), 'model.safetensors')",
        )


def _check_safetensors(path: Path) -> None:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"not a safetensors file, or a damaged one: {error}", where=str(path)) from None


def _check_pickle(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4)
    if head != b"PK\x03\x04":
        raise ModelError(
            "the weights are not in torch's zip format: older formats are not read",
            where=str(path),
            hint=_RESAVE,
        )
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
            if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
                raise ModelError(
                    f"want one data.pkl in the file, got {len(pickles)} pickles: "
                    "a TorchScript archive, or made to mislead",
                    where=str(path),
                    hint=_RESAVE,
                )
            if pickles[0].file_size > _LARGEST_PICKLE_BYTES:
                raise ModelError("the file's table of contents is too large", where=str(path), hint=_RESAVE)
            content = archive.read(pickles[0])
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ModelError(f"the weights file is damaged: {error}", where=str(path)) from None
    _check_calls(content, path)


def _check_calls(content: bytes, path: Path) -> None:
    """Every global that the pickle names must be one that tensors are made of."""
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name in ("GLOBAL", "INST"):
                _check_global(str(argument), path)
            elif code.name in _OTHER_CALLS:
                # torch.save writes protocol 2, which has none of these; what they call cannot be read off.
                raise ModelError(
                    f"the weights file was pickled in an unusual way ({code.name})",
                    where=str(path),
                    hint=_RESAVE,
                )
    except ValueError as error:
        raise ModelError(f"the weights file is damaged: {error}", where=str(path)) from None


def _check_global(name: str, path: Path) -> None:
    module, _, attribute = name.partition(" ")
    if name in _SAFE_BUILTINS or (module in _SAFE_MODULES and attribute and "." not in attribute):
        return
    raise ModelError(
        f"the weights file wants to call {name.replace(' ', '.')[:80]}: a file of weights holds tensors only",
        where=str(path),
        hint="torch.save(model.state_dict(), 'model.pt') where the model is trusted, or .safetensors",
    )

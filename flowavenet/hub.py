"""Where checkpoints are: in a folder, with the package, or on the Hugging Face Hub, to which they can be pushed as well.

The network is only touched for an id, ``user/name``, that is neither a folder nor a shipped name nor in the Hub's cache yet
(and never if ``HF_HUB_OFFLINE`` is set). Nothing that comes from there is run: a checkpoint is YAML and plain arrays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from flowavenet.checkpoint import CARD, CONFIG, WEIGHTS, load_checkpoint, model_card

HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?")
"""user/name, or user/name@revision: a branch, a tag or a commit."""
UNREACHABLE = "it cannot be reached; is there a network? Run it again when there is"
FORBIDDEN = "it does not let you; log in (hf auth login), or set HF_TOKEN, with a token that may do this"
REASONS = {
    "OfflineModeIsEnabled": "it is not in the cache, and HF_HUB_OFFLINE is set; unset that, once",
    "GatedRepoError": "its owner wants to be asked first: see its page there, then log in (hf auth login)",
    "RepositoryNotFoundError": "no such repository, or a private one; check the spelling, or log in (hf auth login)",
    "RevisionNotFoundError": "no such revision in that repository; give a branch, a tag or a commit",
    "HFValidationError": "no id that it would take; give user/name",
    "LocalEntryNotFoundError": UNREACHABLE,
    "TransportError": UNREACHABLE,
}
"""What to tell of an error, by the name of its class or of one it is derived from; the first that fits."""


def shipped_checkpoints() -> dict[str, Path]:
    """The checkpoints that came with the package, by name."""
    package = Path(__file__).parent
    # beside the package in a clone, inside it when installed from a wheel
    homes = package.parent / "checkpoints", package / "checkpoints"
    return {file.parent.name: file.parent for home in homes for file in sorted(home.glob("*/config.yaml"))}


def find_checkpoint(source: str | os.PathLike) -> Path:
    """The folder of a checkpoint given by path, by name, or by its id on the Hub; what is here wins.

    Raises OSError, ValueError or ModuleNotFoundError, in one line.
    """
    if Path(source).is_dir():
        return Path(source)
    shipped = shipped_checkpoints()
    if str(source) in shipped:
        return shipped[str(source)]
    if Path(source).name == "vocoder" and any(Path(source).parent.glob("events.out.tfevents.*")):
        raise FileNotFoundError(f"{source}: this run has saved no vocoder yet; it does so when it validates, and at its end")
    if is_remote(source):
        return download(str(source))
    known = ", ".join(sorted(shipped)) or "none"
    raise FileNotFoundError(f"{source}: no such checkpoint folder, and no shipped checkpoint; shipped are: {known}")


def is_remote(source: str | os.PathLike) -> bool:
    """Whether this is the id of a checkpoint on the Hub, and nothing of that spelling is here. A ``Path`` never is one."""
    return isinstance(source, str) and bool(HUB_ID.fullmatch(source)) and not Path(source).exists()


def download(source: str) -> Path:
    """The folder of a checkpoint on the Hub; fetched once, then taken from the Hub's cache, without a network.

    So a branch stays where it was when it was first loaded; ``hf download user/name`` brings the cache up to date.

    Args:
        source: ``user/name``, or ``user/name@revision``.

    Raises OSError or ModuleNotFoundError, in one line; files that came through whole are kept for the next time.
    """
    repository, revision = HUB_ID.fullmatch(source).groups()
    with _in_one_line(f"{source}: no such folder, and not loaded from the Hugging Face Hub") as hub:
        cached = [hub.try_to_load_from_cache(repository, name, revision=revision) for name in (CONFIG, WEIGHTS)]
        if all(isinstance(file, str) for file in cached):              # else None, or a mark: known to be missing
            return Path(cached[0]).parent
        # asked first, as the weights of some other library may be large
        there = {file.rfilename for file in hub.HfApi().model_info(repository, revision=revision).siblings}
        missing = [name for name in (CONFIG, WEIGHTS) if name not in there]
        if not missing:
            return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=[CONFIG, WEIGHTS, CARD]))
    raise FileNotFoundError(f"{source}: not a flowavenet checkpoint: the repository has no {' and no '.join(missing)}")


def push(folder: str | os.PathLike, repository: str, private: bool | None = None, token: str | None = None) -> str:
    """Put a checkpoint folder on the Hub, in one commit, with a card that says how to load it from there; its address.

    Args:
        folder: must load; its files go there as they are, but for the card.
        repository: ``user/name``; made if it is not there, and what it had in these files is replaced.
        private: whether only you may see it, if it is made now; None: as your account has it.
        token: that may write there; None: of ``hf auth login``, or ``HF_TOKEN``.

    Raises ValueError, OSError or ModuleNotFoundError, in one line.
    """
    if not HUB_ID.fullmatch(repository) or "@" in repository:
        raise ValueError(f"{repository}: no id of a repository on the Hugging Face Hub; give user/name")
    folder = Path(folder)
    card = model_card(repository, *load_checkpoint(folder))
    with _in_one_line(f"{repository}: not pushed to the Hugging Face Hub") as hub:
        api = hub.HfApi(token=token)
        address = api.create_repo(repository, private=private, exist_ok=True)
        files = {CONFIG: folder / CONFIG, WEIGHTS: folder / WEIGHTS, CARD: card.encode()}
        additions = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repository, additions, commit_message="Push a flowavenet checkpoint")
    return str(address)


@contextmanager
def _in_one_line(what: str) -> Iterator[ModuleType]:
    """The Hub's own library, for work with it; whatever goes wrong there ends as one line that opens with what failed."""
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what}: that needs {error.name}: pip install 'flowavenet[hub]'") from None
    try:
        yield huggingface_hub
    except Exception as error:                                         # of its transport, which changes with its versions
        names = {cls.__name__ for cls in type(error).__mro__}
        status = getattr(getattr(error, "response", None), "status_code", None)
        unknown = FORBIDDEN if status in (401, 403) else f"{' '.join(str(error).split())} ({type(error).__name__})"
        reason = next((why for name, why in REASONS.items() if name in names), unknown)
        raise OSError(f"{what}: {reason}") from error

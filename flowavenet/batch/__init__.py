"""Make audio of folders of files: any number of mels and recordings, of any length, here or in object stores.

`plan` finds the files, names their results and divides them into portions; `loop` vocodes portions, on this machine; `ray`
has several processes do that; `stores` reads from and writes to what fsspec knows the way to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flowavenet.batch.loop import Job, Loop, Report
from flowavenet.batch.plan import File, divide, find_done, find_files, is_url, refuse_overwriting
from flowavenet.batch.sources import Mel, Recording, detect_folders
from flowavenet.files import ready_folder
from flowavenet.vocoder import Vocoder

__all__ = ["File", "Job", "Loop", "Mel", "Recording", "Report", "find_files", "refuse_overwriting", "vocode_files"]


def vocode_files(
    files: Sequence[File], vocoder: Vocoder, job: Job, skip_existing: bool = False,
    engine: Callable[..., Report] | None = None, progress: Callable[[float, int], None] = lambda done, total: None,
) -> Report:
    """Vocode files, past bad ones, to ``out/<name>.wav``.

    Results appear whole or not at all, so that what was killed goes on with `skip_existing`. To the last bit, results are
    those of an undisturbed run with as many threads: sums are rounded by the order of their terms, and files that share a
    batch follow from all that are given, whether or not some are bad, or there already.

    Args:
        files: as :func:`find_files` finds them.
        vocoder: does the work; of engines that load their own, it tells what mels they take.
        job: what to do with each file, and where results go.
        skip_existing: leave a file alone whose results are there and not older than itself.
        engine: takes the job, portions of files, what is known of the mels in each folder, and `progress`, and returns a
            report, as :class:`~flowavenet.batch.ray.RayEngine`. None: this process.
        progress: is told how many files are done, and of how many.

    Raises:
        Unwritable: results cannot be written there, in one line.
        ValueError, OSError: a store cannot be listed, or there is no such speaker; in one line.
    """
    vocoder.voice(job.how.get("speaker"))                              # one that is wrong is so for every file
    if is_url(job.out):
        from flowavenet.batch.stores import open_store

        open_store(job.out)                                            # what is wrong with the address is said now
    else:
        for folder in sorted({Path(job.out), *(Path(job.out, file.name).parent for file in files)}):
            ready_folder(folder)
    done = find_done(files, job.out, job.suffixes) if skip_existing else set()
    files = [replace(file, done=file in done) for file in files]
    portions = [portion for portion in divide(files, job.batch) if not all(file.done for file in portion)]
    left = {file.kind for portion in portions for file in portion}     # all files of these count, done or not
    known = {} if job.convention else detect_folders([file for file in files if file.kind in left], vocoder.settings)
    report = (engine or Loop(vocoder))(job, portions, known, progress)
    report.skipped = len(done)
    return report

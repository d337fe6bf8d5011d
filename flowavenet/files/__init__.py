"""Files in general: written whole or not at all, read strictly, refused in one line. Nothing here knows of audio."""

from flowavenet.files.atomic import write_atomically
from flowavenet.files.errors import Failures, once, one_line, short_of_memory
from flowavenet.files.processes import end_with_parent
from flowavenet.files.strict import NPY, parse_npy, read_table, read_text, read_yaml, short
from flowavenet.files.writable import NoFolder, Unwritable, ready_folder

__all__ = [
    "Failures", "NPY", "NoFolder", "Unwritable", "end_with_parent", "once", "one_line", "parse_npy", "read_table",
    "read_text", "read_yaml", "ready_folder", "short", "short_of_memory", "write_atomically",
]

"""Files in general: written whole or not at all, read strictly, refused in one line. Nothing here knows of audio."""

from flowavenet.files.atomic import write_atomically
from flowavenet.files.strict import NPY, parse_npy, read_table, read_text, read_yaml, short
from flowavenet.files.writable import NoFolder, Unwritable, ready_folder

__all__ = [
    "NPY", "NoFolder", "Unwritable", "parse_npy", "read_table", "read_text", "read_yaml", "ready_folder", "short",
    "write_atomically",
]

"""``python -m flowavenet.cli``, where the program is not on the path."""

from flowavenet.cli import main

main()

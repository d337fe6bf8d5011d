"""How close vocoded speech is to the recording. The metric libraries are optional: pip install 'flowavenet[evaluate]'."""

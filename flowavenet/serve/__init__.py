"""The HTTP service: mels and recordings in, audio out while it is being made, one thread of work for all who ask."""

"""Measure how close vocoded speech is to the recording, and how it sounds.

The metric libraries are optional: pip install 'flowavenet[evaluate]'.
"""

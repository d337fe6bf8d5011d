"""Read corpora of speech and draw training crops from them: files, manifests, predicted mels, shards; no Lightning."""

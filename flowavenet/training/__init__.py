"""Everything that needs pytorch_lightning: data, training modules, callbacks."""

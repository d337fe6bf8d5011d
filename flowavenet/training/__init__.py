"""Train vocoders with pytorch_lightning: modules, data module, callbacks, command line, and what ``report`` shows."""

"""Watch a run: samples and statistics for TensorBoard, and the rule and the page of ``flowavenet report``."""

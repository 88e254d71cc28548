"""Experiment logging of a training run: metrics.jsonl, TensorBoard and other boards, throughput and MFU."""

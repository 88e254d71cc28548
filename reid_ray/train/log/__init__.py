"""What a training run says while it goes: metrics.jsonl, boards, rates."""

"""What torch's allocator hands out."""

from __future__ import annotations

from torch.profiler import ProfilerActivity, profile


def most_bytes_alive(run) -> int:
    """What torch's allocator handed out and did not get back, at most, while `run` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    alive = peak = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak

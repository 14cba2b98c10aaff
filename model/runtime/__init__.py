"""Progress, timing, threads, memory and seeds: nothing of the method."""

"""Knows nothing of VAEs: errors, files, paths, console, random states, hardware, processes, workarounds for other libraries."""

"""Errors, files, paths, console, random states, hardware, processes and workarounds: nothing about VAEs."""

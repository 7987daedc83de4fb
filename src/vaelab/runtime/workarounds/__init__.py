"""Workarounds for other libraries: one file each, with its reason, and a test that fails when the reason is gone."""

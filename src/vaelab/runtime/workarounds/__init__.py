"""Workarounds for other libraries: one file each, with the reason, and a test that fails when the reason is gone."""

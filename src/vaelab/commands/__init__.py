"""The commands, one file each, named as their script and their configuration."""

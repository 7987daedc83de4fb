"""The commands: one module each, with the name of its script and its configuration file."""

"""Configs: YAML files and words of the command line, checked, as one value. Nothing is computed here."""

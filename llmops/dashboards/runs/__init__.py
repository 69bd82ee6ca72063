"""Runs: the list, and the story of one."""

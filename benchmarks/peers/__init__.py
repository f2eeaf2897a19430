"""Servers that others would write around the same generators, set up as their guides advise."""

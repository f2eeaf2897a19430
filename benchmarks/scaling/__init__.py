"""A simulation of many replicas, and what it is checked against; no service code."""

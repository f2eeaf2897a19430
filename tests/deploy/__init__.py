"""Tests of a service under abuse, load and faults, for minutes; `make soak` runs them."""

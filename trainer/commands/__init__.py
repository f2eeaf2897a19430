"""The commands of ``python -m trainer``, one file each: its arguments, and what it calls."""

"""The commands of ``atelier``, one file each: its arguments, and what it calls."""

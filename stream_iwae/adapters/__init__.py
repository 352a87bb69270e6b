"""Sockets, files, clocks and threads behind the ports, and their in-memory twins."""

"""Pure core: bytes in, bytes or findings out; no clock, no I/O, no randomness."""

"""One generated kernel for the whole chain loop: tiles of chains stay in registers and cache, noise included."""

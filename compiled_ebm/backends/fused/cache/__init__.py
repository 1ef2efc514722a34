"""Compiled kernels and measured trials on disk: one directory a user, in which nothing unverified is trusted.

A kernel is ``<key>.so`` with its size and SHA-256 in ``<key>.json``, a trial ``trial-<hash>.json``.
"""

from compiled_ebm.backends.fused.cache.folder import CacheError, CacheWarning, abandon, directory
from compiled_ebm.backends.fused.cache.kernels import install, kernel_file, verified
from compiled_ebm.backends.fused.cache.locks import locked
from compiled_ebm.backends.fused.cache.own_files import workspace
from compiled_ebm.backends.fused.cache.room import trim
from compiled_ebm.backends.fused.cache.trials import recall, remember

__all__ = [
    "CacheError",
    "CacheWarning",
    "abandon",
    "directory",
    "install",
    "kernel_file",
    "locked",
    "recall",
    "remember",
    "trim",
    "verified",
    "workspace",
]

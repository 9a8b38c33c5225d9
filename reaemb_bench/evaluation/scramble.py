"""Numbers that look random and depend on nothing but what goes in: scrambled bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]


def mix64(values: UInt64) -> UInt64:
    """Other bits, one to one; the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed: UInt64 = values * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def mix32(values: UInt32) -> UInt32:
    """Other bits, one to one, written over `values`; the finaliser of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values ^= values >> np.uint32(shift)
        values *= np.uint32(factor)
    values ^= values >> np.uint32(16)
    return values

//! Bounded memory, and idleness that costs nothing.

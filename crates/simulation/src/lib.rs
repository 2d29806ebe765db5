//! Part of Evener.

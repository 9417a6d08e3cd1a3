//! THE path: signature, claim, connection, plan. Synchronous and embeddable; uses domain only.

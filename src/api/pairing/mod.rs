//! Pairing: a gateway's bridge holds one WebSocket to this API, over which its owner's commands reach the gateway's
//! admin API, so that no port has to be opened where the gateway lives.
//!
//! Owns the pair sessions and the live sockets. A session is started by an owner, joined with its pair code, and ends
//! with its lease, at the latest a stated time after its start. It outlives a restart of the API; its socket does not,
//! and is made again by the bridge.
//!
//! Promises: a command reaches the one bridge of its own owner's session or nobody; its answer reaches who asked and
//! nobody else; a session has one live socket, and what happens to a replaced one touches nothing of its successor;
//! what is relayed is in no log and in no database; pair codes and reconnect secrets are kept as keyed hashes, which alone
//! do not give them away.
//!
//! **Wrong pair codes.** A code has 40 bits. Before any bridge has joined, the fifth wrong one ends the session: its
//! owner starts another and nobody has lost anything. They are counted in the database: a restart of the API gives no more of them. Once a bridge has joined, ending it would let a stranger who
//! knows no more than the session's id cut a gateway off; so wrong codes are then answered five at a time and one more
//! every half minute, beyond which nobody's code is looked at and the answer is to try later (429, which our bridge
//! takes as no verdict. The original one sees no status, and takes its third failure in a row that came within 5 s for the end, if
//! API and gateway are well: answers 409 and 429 to a handshake with the code in its address are therefore held for 5.5 s, 64 at a
//! time). The address the bridge was last at has a budget of its own: strangers elsewhere do not keep it
//! from coming back. Nor does anybody at its own address, if it holds its reconnect secret: 32 random bytes that are handed
//! out in the answer to the handshake a code opened, once each time, and that no budget is asked about. A bridge that knows
//! nothing of them goes on by the code. A secret counts until the code opens the session again.
//!
//! Both budgets together are at most some 5,800 guesses a day, one chance in 190 million, before the session ends anyway.

mod code;
mod connect;
mod hub;
mod line;
mod records;
mod rest;
mod sessions;
mod socket;
mod tries;

pub use crate::api::pairing::connect::PATH as CONNECT_PATH;
pub use crate::api::pairing::records::Ended;
pub use crate::api::pairing::rest::COMMAND_PATH;
pub use crate::api::pairing::rest::MAX_TIMEOUT;
pub use crate::api::pairing::rest::routes;
pub use crate::api::pairing::sessions::Order;
pub use crate::api::pairing::sessions::PairingLimits;
pub use crate::api::pairing::sessions::Pairings;
pub use crate::api::pairing::sessions::Standing;
pub use crate::api::pairing::sessions::Started;
pub use crate::api::pairing::socket::Arrivals;
pub use crate::api::pairing::socket::keep;

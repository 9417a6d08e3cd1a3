//! The dashboard: pages for a namespace's owner, served by the control plane at `/`.
//!
//! Server-rendered and usable without scripts; scripts copy, count down, look for news and seal secrets. Every page
//! wears a Content-Security-Policy under which nothing runs but the files of this program, and every change comes by
//! POST from a page of ours. What strangers wrote (names of agents, subjects, what a gateway says) is text and never
//! markup. Decides nothing: it calls what the API's own endpoints call, and a gateway through its pairing. Secrets of
//! providers pass through sealed to the gateway's key; a plain one only where the owner says so.

mod answer;
mod assets;
mod chart;
mod claims;
mod connections;
mod failure;
mod filters;
pub mod form;
mod gateway;
mod handover;
mod layout;
mod listed;
mod offer;
mod overview;
mod pairing;
mod relay;
mod router;
mod secrets;
mod services;
mod session;
mod usage;
mod visitor;
mod when;

pub use router::pages;

//! Plans and expressions through the public face of the crate. One binary, since each links everything that expressions need.

mod expressions;
mod golden;
mod identities;
mod logical;
mod mistakes;
mod outline;
mod plans;
mod pushdown;
mod random_plans;
mod signatures;
mod speed;
mod support;

//! The tables in a real MariaDB and a real PostgreSQL, each test with a server of its own in a temporary directory.
//!
//! `cargo test -p portcullis-address --test servers -- --ignored`: without MariaDB, PostgreSQL and Kamailio's scripts for PostgreSQL
//! these tests fail. Tests of common behaviour run on both servers (`on_each_server!`); `only_mariadb` and `only_postgres` have the rest.

#![expect(
    clippy::unwrap_used,
    reason = "the body of a test is a function of its own here, and a panic is how a test fails"
)]

mod import;
mod only_mariadb;
mod only_postgres;
mod reach;
mod rows;
mod schema;
mod support;
mod trusted;
mod watch;

//! Twenty small policies for common tasks. Each file in `examples` is complete: copied to `src/lib.rs` of a crate, it is a policy.
//!
//! `docs/recipes.md` shows all of them; the test `page` writes that page from their sources.

#![forbid(unsafe_code)]

/// The examples of `docs/sdk.md`, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/sdk.md")]
pub struct SdkPage;

#[cfg(test)]
#[path = "../examples/anonymous-calls.rs"]
mod anonymous_calls;
#[cfg(test)]
#[path = "../examples/attestation.rs"]
mod attestation;
#[cfg(test)]
#[path = "../examples/caller-id.rs"]
mod caller_id;
#[cfg(test)]
#[path = "../examples/carrier-canary.rs"]
mod carrier_canary;
#[cfg(test)]
#[path = "../examples/carrier-rate.rs"]
mod carrier_rate;
#[cfg(test)]
#[path = "../examples/class-of-service.rs"]
mod class_of_service;
#[cfg(test)]
#[path = "../examples/e164.rs"]
mod e164;
#[cfg(test)]
#[path = "../examples/emergency.rs"]
mod emergency;
#[cfg(test)]
#[path = "../examples/geo-block.rs"]
mod geo_block;
#[cfg(test)]
#[path = "../examples/header-hygiene.rs"]
mod header_hygiene;
#[cfg(test)]
#[path = "../examples/invite-flood.rs"]
mod invite_flood;
#[cfg(test)]
#[path = "../examples/least-cost.rs"]
mod least_cost;
#[cfg(test)]
#[path = "../examples/maintenance.rs"]
mod maintenance;
#[cfg(test)]
#[path = "../examples/office-hours.rs"]
mod office_hours;
#[cfg(test)]
mod page;
#[cfg(test)]
#[path = "../examples/register-limit.rs"]
mod register_limit;
#[cfg(test)]
#[path = "../examples/scanner-block.rs"]
mod scanner_block;
#[cfg(test)]
mod sdk_page;
#[cfg(test)]
#[path = "../examples/tenant-quota.rs"]
mod tenant_quota;
#[cfg(test)]
#[path = "../examples/test-calls.rs"]
mod test_calls;
#[cfg(test)]
#[path = "../examples/toll-fraud.rs"]
mod toll_fraud;
#[cfg(test)]
#[path = "../examples/trunk-failover.rs"]
mod trunk_failover;

//! The macro that makes a function the policy of its crate.

/// Makes a function the policy of this crate: the function that Portcullis calls for every request.
///
/// The function takes no arguments and returns a [`Verdict`](crate::Verdict). A crate has one policy.
///
/// An optional second function validates the [`settings`](crate::settings) and returns one sentence that says what is wrong with them.
/// The host calls it when policy or settings change; refused settings do not become active.
///
/// ```
/// use portcullis_sdk::prelude::*;
///
/// policy!(decide, settings: check);
///
/// fn decide() -> Verdict {
///     let rate = settings::number("calls-per-second").unwrap_or(1.0);
///     if counters::rate_limit("calls", rate, 10) { relay() } else { reject(503, "") }
/// }
///
/// fn check() -> Result<(), String> {
///     match settings::number("calls-per-second") {
///         Some(rate) if rate > 0.0 => Ok(()),
///         _ => Err("`calls-per-second` must be a number above 0".into()),
///     }
/// }
/// ```
///
/// An optional `on_failure` is called when all targets of a request have failed ([`outcome`](crate::outcome)). Without it, the sender gets the
/// best response.
///
/// ```
/// use portcullis_sdk::prelude::*;
///
/// policy!(decide, on_failure: after);
///
/// fn decide() -> Verdict {
///     relay_to("carrier-a").or("carrier-b")
/// }
///
/// fn after() -> NextStep {
///     answer(503, "All carriers failed").header("Retry-After", "30")
/// }
/// ```
///
/// A policy with both names `settings` first: `policy!(decide, settings: check, on_failure: after);`.
///
/// ```
/// use portcullis_sdk::prelude::*;
///
/// policy!(decide);
///
/// fn decide() -> Verdict {
///     reject(503, "Closed for today").header("Retry-After", "3600")
/// }
/// ```
#[macro_export]
macro_rules! policy {
    ($decide:path $(,)?) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $crate::Verdict = $decide;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Policy;

            impl $crate::guest::Guest for Policy {
                fn decide() -> $crate::wire::Verdict {
                    $crate::exports::decide($decide)
                }
            }

            $crate::guest::export!(Policy with_types_in $crate::guest);

            #[used]
            #[unsafe(link_section = "portcullis-sdk")]
            static SDK_VERSION: [u8; $crate::VERSION.len()] = $crate::guest::SECTION;
        };
    };
    ($decide:path, settings: $validate:path $(,)?) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: (fn() -> $crate::Verdict, fn() -> Result<(), String>) = ($decide, $validate);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Policy;

            impl $crate::guest::configured::Guest for Policy {
                fn decide() -> $crate::wire::Verdict {
                    $crate::exports::decide($decide)
                }

                fn validate_settings() -> Result<(), String> {
                    $crate::guest::run($validate)
                }
            }

            $crate::guest::configured::export!(Policy with_types_in $crate::guest::configured);

            #[used]
            #[unsafe(link_section = "portcullis-sdk")]
            static SDK_VERSION: [u8; $crate::VERSION.len()] = $crate::guest::SECTION;
        };
    };
    ($decide:path, on_failure: $on_failure:path $(,)?) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: (fn() -> $crate::Verdict, fn() -> $crate::NextStep) = ($decide, $on_failure);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Policy;

            impl $crate::guest::failover::Guest for Policy {
                fn decide() -> $crate::wire::Verdict {
                    $crate::exports::decide($decide)
                }

                fn on_failure() -> $crate::guest::portcullis::policy::outcome::NextStep {
                    $crate::exports::on_failure($on_failure)
                }
            }

            $crate::guest::failover::export!(Policy with_types_in $crate::guest::failover);

            #[used]
            #[unsafe(link_section = "portcullis-sdk")]
            static SDK_VERSION: [u8; $crate::VERSION.len()] = $crate::guest::SECTION;
        };
    };
    ($decide:path, settings: $validate:path, on_failure: $on_failure:path $(,)?) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: (fn() -> $crate::Verdict, fn() -> Result<(), String>, fn() -> $crate::NextStep) = ($decide, $validate, $on_failure);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Policy;

            impl $crate::guest::configured_failover::Guest for Policy {
                fn decide() -> $crate::wire::Verdict {
                    $crate::exports::decide($decide)
                }

                fn validate_settings() -> Result<(), String> {
                    $crate::guest::run($validate)
                }

                fn on_failure() -> $crate::guest::portcullis::policy::outcome::NextStep {
                    $crate::exports::on_failure($on_failure)
                }
            }

            $crate::guest::configured_failover::export!(Policy with_types_in $crate::guest::configured_failover);

            #[used]
            #[unsafe(link_section = "portcullis-sdk")]
            static SDK_VERSION: [u8; $crate::VERSION.len()] = $crate::guest::SECTION;
        };
    };
}

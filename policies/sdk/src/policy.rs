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
    ($decide:path) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $crate::Verdict = $decide;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Policy;

            impl $crate::guest::Guest for Policy {
                fn decide() -> $crate::Verdict {
                    $crate::guest::run($decide)
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
                fn decide() -> $crate::Verdict {
                    $crate::guest::run($decide)
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
}

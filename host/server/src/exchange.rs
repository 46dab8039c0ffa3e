//! The exchange with other hosts, as `[fleet.redis]` says.

use portcullis_config::RedisConfig;
use portcullis_fleet::exchange::{Credentials, Options, Place, Sentinel, TlsFiles};

/// What the exchange needs; `None` without servers. `host` is the name of this host.
pub(crate) fn options(config: &RedisConfig, host: &str) -> Option<Options> {
    let first = config.servers.first()?;
    let credentials = Credentials {
        user: first.user.clone(),
        password_file: config.password_file.clone(),
    };
    let sentinel = config.sentinel.as_ref().map(|primary| Sentinel {
        primary: primary.clone(),
        credentials: Credentials {
            user: None,
            password_file: config.sentinel_password_file.clone(),
        },
    });
    let servers = config.servers.iter().map(|server| Place {
        host: server.host.clone(),
        port: server.port,
    });
    Some(Options {
        servers: servers.collect(),
        sentinel,
        credentials,
        tls: first.tls.then(|| TlsFiles {
            ca: config.ca.clone(),
            pair: config.pair.clone(),
        }),
        database: first.database,
        prefix: config.prefix.clone(),
        interval: config.interval,
        host: host.to_owned(),
    })
}

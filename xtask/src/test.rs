//! `cargo xtask test`

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build::{self, Profile};
use crate::debian::{self, GALERA, KNOT, MARIADB, Need, REDIS};
use crate::fuzz::Until;
use crate::process::{cargo, find, run as run_command};
use crate::soak::{CallsSoak, CountersSoak, FleetSoak, NamesSoak, RenewalsSoak, Soak, TenantsSoak};
use crate::steps::Steps;
use crate::workspace::{Package, Workspace, root};
use crate::{book, deny, disk, fuzz, languages, loom, npm, package, schemathesis};

/// Run all checks and tests
///
/// In this order: formatting, lints, the rules of `deny.toml` for dependencies, documentation, the policies compiled to Wasm, unit and
/// property tests (including those with MariaDB or PostgreSQL), models of concurrent parts, documentation tests, the package for Debian
/// installed in a copy of this machine, end-to-end tests with these, Kamailio and its tools, SIPp, sipsak, tcpdump, valgrind, promtool, sngrep,
/// Docker's registry, HAProxy, nginx and Chromium, a few seconds of soak with 50 tenants, with calls, with renewed certificates, with a zone that
/// changes, of counters that hosts share, and with four hosts on one database, a minute of soak, and a short run of each fuzz target that builds within a minute. Other programs are installed when this runs as root on Debian;
/// elsewhere the missing ones are listed and the run fails. The first failing step ends the run and is named; the last line of output is
/// `N passed, N failed`.
///
/// Environment variables: PORTCULLIS_ORACLE_SEED repeats a comparison with Kamailio, PORTCULLIS_ORACLE_DECISIONS makes it longer, and
/// PORTCULLIS_FIRE_SECONDS sets the duration of the reloads under fire.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Skip the tests that need MariaDB, PostgreSQL, Kamailio or its tools, SIPp, sipsak, tcpdump, valgrind, promtool, sngrep, Docker's registry, HAProxy, nginx or Chromium
    #[arg(long)]
    without_peers: bool,
    /// Number of inputs for each of these fuzz targets, from a fixed seed; 0 skips the targets
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    fuzz_runs: u32,
    /// Duration of the soak test; 0 skips it and those with 50 tenants, with calls, with renewed certificates, and with a zone that changes
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    soak_seconds: u32,
}

/// Length of the soak with 50 tenants.
const TENANTS_SOAK_SECONDS: u32 = 10;

/// Programs that the tests need, in addition to MariaDB.
const PEERS: [Need; 37] = [
    // The wall clocks of some hosts are moved.
    Need {
        name: "faketime",
        package: "faketime",
    },
    // Policies are published there.
    Need {
        name: "docker-registry",
        package: "docker-registry",
    },
    // Reads what the host sends to a capture server.
    Need {
        name: "sngrep",
        package: "sngrep",
    },
    // Checks the page of metrics, the alert rules and the dashboards.
    Need {
        name: "promtool",
        package: "prometheus",
    },
    // callgrind counts instructions.
    Need {
        name: "valgrind",
        package: "valgrind",
    },
    // The server programs are not in PATH; this program is in the same package.
    Need {
        name: "pg_ctlcluster",
        package: "postgresql",
    },
    Need {
        name: "psql",
        package: "postgresql",
    },
    // Runs PostgreSQL as a user other than root.
    Need {
        name: "setpriv",
        package: "util-linux",
    },
    // The package of Kamailio's scripts for PostgreSQL.
    Need {
        name: "kamailio/modules/db_postgres.so",
        package: "kamailio-postgres-modules",
    },
    Need {
        name: "sipp",
        package: "sip-tester",
    },
    Need {
        name: "sipsak",
        package: "sipsak",
    },
    Need {
        name: "tcpdump",
        package: "tcpdump",
    },
    KNOT,
    REDIS,
    GALERA[0],
    GALERA[1],
    // Scanners, and the program that reads the bans from the log.
    Need {
        name: "svwar",
        package: "sipvicious",
    },
    Need {
        name: "fail2ban-regex",
        package: "fail2ban",
    },
    // Kamailio as a peer over TLS, and OpenSSL's client.
    Need {
        name: "kamailio/modules/tls.so",
        package: "kamailio-tls-modules",
    },
    // A registrar with outbound.
    Need {
        name: "kamailio/modules/outbound.so",
        package: "kamailio-outbound-modules",
    },
    // A phone with outbound.
    Need {
        name: "baresip",
        package: "baresip-core",
    },
    Need {
        name: "openssl",
        package: "openssl",
    },
    // Reads what the host writes to the journal; the server is in the same package.
    Need {
        name: "journalctl",
        package: "systemd",
    },
    // Makes the interfaces of tests with a network of their own.
    Need {
        name: "ip",
        package: "iproute2",
    },
    // Load balancers that send PROXY headers.
    Need {
        name: "haproxy",
        package: "haproxy",
    },
    Need {
        name: "nginx",
        package: "nginx-light",
    },
    Need {
        name: "nginx/modules/ngx_stream_module.so",
        package: "libnginx-mod-stream",
    },
    Need {
        name: "chromium",
        package: "chromium",
    },
    // They run the tests in a browser, with the packages of tests/console and tests/phones.
    Need {
        name: "node",
        package: "nodejs",
    },
    Need {
        name: "npm",
        package: "npm",
    },
    // Runs schemathesis, with the packages of tests/schemathesis.
    Need {
        name: "python3",
        package: "python3-venv",
    },
    Need {
        name: "kamctl",
        package: "kamailio",
    },
    Need {
        name: "kamcmd",
        package: "kamailio",
    },
    Need {
        name: "kamcli",
        package: "kamcli",
    },
    // kamctl needs this package for MySQL.
    Need {
        name: "kamailio/kamctl/kamctl.mysql",
        package: "kamailio-mysql-modules",
    },
    Need {
        name: "kamailio",
        package: "kamailio",
    },
    Need {
        name: "kamailio/modules/db_mysql.so",
        package: "kamailio-mysql-modules",
    },
];

/// Space that the databases of concurrent tests need in the directory for temporary files, in MiB: several times the observed size.
const ROOM: u64 = 2048;

/// The crate with the end-to-end tests.
const END_TO_END: &str = "portcullis-tests";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::own()?;
    let mut steps = Steps::default();

    steps.step("format", || check_format(&workspace));
    steps.step("lints", || {
        cargo_in_root(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ])
    });
    steps.step("licences, bans and sources", deny::check);
    steps.step("documentation", || {
        let mut doc = cargo();
        doc.current_dir(root())
            .env("RUSTDOCFLAGS", "--deny warnings");
        run_command(doc.args(["doc", "--workspace", "--no-deps"]))
    });
    steps.step("policies", || {
        build::policies_with_tests(&workspace).map(drop)
    });
    if args.without_peers {
        steps.leave_out(
            "tests with MariaDB, PostgreSQL, Kamailio, its tools, SIPp, sipsak, tcpdump and Chromium (--without-peers)",
        );
    } else {
        steps.step("peers", || {
            debian::require(&[&MARIADB[..], &PEERS].concat())?;
            disk::require(&env::temp_dir(), ROOM)
        });
        steps.step("policies in other languages", languages::build_quickly);
        steps.step("packages of the tests in a browser", || {
            npm::install("console", &workspace.target)?;
            npm::install("phones", &workspace.target)
        });
        steps.step("schemathesis", || schemathesis::install(&workspace.target));
    }
    steps.step("unit tests", || {
        run_command(&mut tests(&workspace, args, false))
    });
    steps.step("models of concurrent parts", loom::check);
    steps.step("documentation tests", || {
        cargo_in_root(&["test", "--workspace", "--doc"])
    });
    steps.step("host binary", || {
        cargo_in_root(&["build", "--workspace", "--bin", "portcullis"])
    });
    packages(&mut steps, &workspace);
    steps.step("end-to-end tests", || {
        run_command(&mut tests(&workspace, args, true))
    });
    soak(&mut steps, &workspace, args);
    fuzz_all(&mut steps, args);

    Ok(steps.finish())
}

fn check_format(workspace: &Workspace) -> Result<()> {
    cargo_in_root(&["fmt", "--all", "--check"])?;
    // These are workspaces of their own.
    for manifest in [fuzz::folder().join("Cargo.toml"), book::manifest()] {
        let is_member = |package: &Package| package.manifest_path == manifest;
        if workspace.packages.iter().any(is_member) || !manifest.is_file() {
            continue;
        }
        let mut format = cargo();
        run_command(
            format
                .args(["fmt", "--all", "--check", "--manifest-path"])
                .arg(manifest),
        )?;
    }
    Ok(())
}

/// The end-to-end tests, or all others.
///
/// Both are chosen from the whole workspace: packages built by themselves have other features, and much would be built twice.
fn tests(workspace: &Workspace, args: &Args, end_to_end: bool) -> Command {
    let mut command = cargo();
    command.current_dir(root());
    // Tests that need other programs are named `peers_…`, or ignored.
    if find("cargo-nextest").is_some() {
        let package = if end_to_end { "" } else { "not " };
        let peers = if args.without_peers {
            " and not test(peers_)"
        } else {
            ""
        };
        command
            .args(["nextest", "run", "--workspace", "--no-fail-fast"])
            .arg(format!("--filterset={package}package({END_TO_END}){peers}"));
        if !args.without_peers {
            command.arg("--run-ignored=all");
        }
    } else {
        command
            .args(["test", "--no-fail-fast", "--lib", "--bins", "--tests"])
            .args(if end_to_end {
                &["--package", END_TO_END][..]
            } else {
                &["--workspace", "--exclude", END_TO_END]
            });
        command.arg("--").arg(if args.without_peers {
            "--skip=peers_"
        } else {
            "--include-ignored"
        });
    }
    command
        .env("PORTCULLIS_BIN", binary(workspace))
        .env("PORTCULLIS_POLICIES", workspace.target.join("policies"));
    command
}

fn binary(workspace: &Workspace) -> PathBuf {
    build::built(workspace, Profile::Debug, "portcullis")
}

/// The package for Debian, from the binary of the tests, over a copy of this machine.
fn packages(steps: &mut Steps, workspace: &Workspace) {
    if !package::can_try() {
        steps.leave_out(
            "package for Debian (needs root, namespaces, dpkg-dev, binutils and iproute2)",
        );
        return;
    }
    steps.step("package for Debian", || {
        package::try_quickly(workspace, &binary(workspace))
    });
}

fn soak(steps: &mut Steps, workspace: &Workspace, args: &Args) {
    if args.soak_seconds == 0 {
        steps.leave_out("soak (--soak-seconds 0)");
        return;
    }
    let tenants = TenantsSoak {
        tenants: 50,
        seconds: TENANTS_SOAK_SECONDS,
        rate: 200,
        turned_away: 1,
    };
    steps.step("soak with 50 tenants", || {
        tenants.run(workspace, &binary(workspace))
    });
    // Ten seconds, which an unoptimised host stands beside other work.
    let calls = CallsSoak {
        calls: 2_000,
        rate: 200,
    };
    steps.step("soak with calls", || {
        calls.run(workspace, &binary(workspace))
    });
    let renewals = RenewalsSoak {
        renewals: 60,
        rate: 200,
        handshakes: 20,
        // The host is not optimised, and shares the machine.
        is_timed: false,
    };
    steps.step("soak with renewed certificates", || {
        renewals.run(workspace, &binary(workspace))
    });
    if args.without_peers {
        steps.leave_out(
            "soak, and soaks with a zone that changes, of shared counters, and with a fleet (--without-peers)",
        );
        return;
    }
    let names = NamesSoak {
        changes: 2,
        rate: 200,
        is_timed: false,
    };
    steps.step("soak with a zone that changes", || {
        names.run(workspace, &binary(workspace))
    });
    let counters = CountersSoak {
        seconds: 4,
        kills: 1,
        is_timed: false,
    };
    steps.step("soak of counters that hosts share", || {
        counters.run(workspace, &binary(workspace))
    });
    let fleet = FleetSoak {
        is_cluster: false,
        hosts: 4,
        rows: 1_000,
        tenants: 3,
        changes: 8,
        seconds: 5,
    };
    steps.step("soak with a fleet", || {
        fleet.run(workspace, &binary(workspace))
    });
    let soak = Soak {
        seconds: args.soak_seconds,
        rate: 200,
        // The host is not optimised, and shares the machine with its attackers.
        p99_ms: 5000,
        turned_away: 1,
    };
    steps.step("soak", || soak.run(workspace, &binary(workspace)));
}

fn fuzz_all(steps: &mut Steps, args: &Args) {
    if args.fuzz_runs == 0 {
        steps.leave_out("fuzz targets (--fuzz-runs 0)");
        return;
    }
    // Those that need wasmtime or sqlx take many minutes to build with counters of coverage.
    let targets = fuzz::quick_and_other_targets();
    if let Ok((_, other)) = &targets {
        let other = other.join(", ");
        steps.leave_out(format!(
            "fuzz targets {other} (cargo xtask fuzz TARGET runs one)"
        ));
    }
    steps.step("fuzz targets", || {
        targets?
            .0
            .iter()
            .try_for_each(|target| fuzz::fuzz(target, Until::Runs(args.fuzz_runs), &[]))
    });
}

fn cargo_in_root(args: &[&str]) -> Result<()> {
    run_command(cargo().current_dir(root()).args(args))
}

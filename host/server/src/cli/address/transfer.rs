//! `portcullis address import` and `export`: the table as a file.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use portcullis_address::{Database, Format, NewRow, RowError, RowWriter, WriteError};

use super::{block_on, is_absent, must_be_there, write_findings};
use crate::cli::print::{clean, count};

/// Stands for standard input or output.
const STREAM: &str = "-";

/// Maximum number of rows buffered between the database and the file.
const BUFFER: usize = 1 << 16;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArgs {
    /// csv, jsonl or address-file [default: by the extension of FILE, else csv]
    #[arg(long)]
    format: Option<Format>,
    /// The target; "-" for standard output. An existing file is replaced
    #[arg(default_value = STREAM)]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ImportArgs {
    /// csv, jsonl or address-file [default: by the extension of FILE]
    #[arg(long)]
    format: Option<Format>,
    /// The source; "-" for standard input
    file: PathBuf,
    /// Remove all existing rows in the same transaction
    #[arg(long)]
    replace: bool,
    /// Read and check everything, show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn export(
    database: &Database,
    args: &ExportArgs,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    must_be_there(database, "portcullis address add")?;
    let format = args.format.or_else(|| of_file(&args.file));
    let format = format.unwrap_or(Format::Csv);
    if args.file.as_os_str() == STREAM {
        let written = write(database, format, BufWriter::with_capacity(BUFFER, out))?;
        return Ok(written.tell());
    }
    let file = Replacement::begin(&args.file)?;
    let written = write(
        database,
        format,
        BufWriter::with_capacity(BUFFER, &file.file),
    )?;
    file.finish()?;
    writeln!(
        out,
        "wrote {} of {} to {}",
        count(written.rows, "row"),
        database.address_source(),
        args.file.display()
    )?;
    Ok(written.tell())
}

pub(super) fn import(
    database: &Database,
    args: &ImportArgs,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    database.must_be_a_table()?;
    let name = match args.file.as_os_str() == STREAM {
        true => "standard input".to_owned(),
        false => args.file.display().to_string(),
    };
    let Some(format) = args.format.or_else(|| of_file(&args.file)) else {
        bail!("the format of {name} is unknown: add --format csv, jsonl or address-file");
    };
    let import = format.read(&read(&args.file, &name)?, &name);
    if !import.errors.is_empty() {
        let errors = &mut io::stderr().lock();
        for error in &import.errors {
            writeln!(errors, "{}", clean(&error.to_string()))?;
        }
        let bad = count(import.refused, "row");
        bail!("{bad} of {name} cannot be used: nothing was imported");
    }
    let rows = import.rows.len() as u64;
    let target = database.url();
    if args.dry_run {
        let there = match is_absent(database) {
            true => 0,
            false => block_on(async {
                database.check().await?;
                database.count().await
            })??,
        };
        write!(out, "would add {} to {target}", count(rows, "row"))?;
        match args.replace {
            true => writeln!(out, ", and remove {}", count(there, "row"))?,
            false => writeln!(out, ", in addition to {}", count(there, "row"))?,
        }
    } else {
        let imported = block_on(database.import(&import.rows, args.replace))??;
        write!(out, "added {} to {target}", count(imported.added, "row"))?;
        match args.replace {
            true => writeln!(out, ", removed {}", count(imported.removed, "row"))?,
            false => writeln!(out)?,
        }
    }
    let what = "may not mean what was intended";
    Ok(write_findings(
        out,
        "row",
        import.warned,
        what,
        &import.warnings,
    )?)
}

/// What an export wrote.
struct Written {
    rows: u64,
    /// Rows that no import would accept, or that the format cannot express.
    left_out: u64,
    /// Rows with an empty tag, which the format cannot distinguish from a missing one.
    untold: u64,
}

impl Written {
    /// Repeats at the end what is not in the file.
    fn tell(&self) -> ExitCode {
        if self.untold > 0 {
            eprintln!(
                "note: {} with an empty tag; this format has no empty tags, so these rows are written without a tag",
                count(self.untold, "row")
            );
        }
        match self.left_out {
            0 => ExitCode::SUCCESS,
            n => {
                eprintln!("error: {} left out", count(n, "row"));
                ExitCode::FAILURE
            }
        }
    }
}

fn write(database: &Database, format: Format, out: impl Write) -> anyhow::Result<Written> {
    let mut writer = RowWriter::new(format, out)?;
    let (mut rows, mut left_out) = (0, 0);
    let mut broken = None;
    let mut each = |row: Result<NewRow, RowError>| {
        let written = row
            .map_err(WriteError::Row)
            .and_then(|row| writer.write(&row));
        match written {
            Ok(()) => rows += 1,
            Err(WriteError::Io(error)) => broken = Some(error),
            Err(error) => {
                left_out += 1;
                eprintln!("left out: {}", clean(&error.to_string()));
            }
        }
    };
    block_on(database.each_new_row(&mut each))??;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(Written {
            rows,
            left_out,
            untold: writer.finish()?,
        }),
    }
}

fn read(file: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match file.as_os_str() == STREAM {
        true => io::stdin().lock().read_to_end(&mut bytes),
        false => File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read {name}"))?;
    Ok(bytes)
}

fn of_file(file: &Path) -> Option<Format> {
    Format::of_file(file.to_str()?)
}

/// A file that replaces another one when it is complete: a host may be watching the path.
struct Replacement<'p> {
    file: File,
    path: &'p Path,
    /// The temporary file; `None` when the target is not a regular file and is written directly.
    draft: Option<PathBuf>,
}

impl<'p> Replacement<'p> {
    fn begin(path: &'p Path) -> anyhow::Result<Self> {
        let is_special = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        let draft = (!is_special).then(|| {
            let mut draft = path.as_os_str().to_owned();
            draft.push(".new");
            PathBuf::from(draft)
        });
        let target = draft.as_deref().unwrap_or(path);
        let file =
            File::create(target).with_context(|| format!("cannot write {}", target.display()))?;
        Ok(Self { file, path, draft })
    }

    fn finish(self) -> anyhow::Result<()> {
        let Some(draft) = self.draft else {
            return Ok(());
        };
        self.file.sync_all()?;
        let renamed = std::fs::rename(&draft, self.path);
        renamed.with_context(|| format!("cannot rename {} to its target", draft.display()))
    }
}

#[cfg(test)]
mod tests {
    use portcullis_address::DatabaseUrl;

    use super::*;

    fn database(folder: &tempfile::TempDir) -> Database {
        Database::new(DatabaseUrl::Sqlite(folder.path().join("table.db")))
    }

    fn import_args(file: &Path) -> ImportArgs {
        ImportArgs {
            format: None,
            file: file.to_owned(),
            replace: false,
            dry_run: false,
        }
    }

    fn imported(database: &Database, args: &ImportArgs) -> anyhow::Result<String> {
        let mut out = Vec::new();
        import(database, args, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn exported(database: &Database, format: Format) -> String {
        let args = ExportArgs {
            format: Some(format),
            file: STREAM.into(),
        };
        let mut out = Vec::new();
        export(database, &args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_file_goes_in_and_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(&folder);
        let file = folder.path().join("rows.csv");
        let text = "grp,ip_addr,mask,port,tag\n200,192.168.1.0,24,5060,\"Office, old\"\n1,2001:db8::1,128,0,\\N\n";
        std::fs::write(&file, text).unwrap();
        let mut args = import_args(&file);
        args.dry_run = true;
        let said = imported(&database, &args).unwrap();
        assert!(
            said.starts_with("would add 2 rows to sqlite:")
                && said.ends_with(", in addition to 0 rows\n"),
            "{said}"
        );
        assert!(is_absent(&database), "a dry run makes no file");
        args.dry_run = false;
        for _ in 0..2 {
            let said = imported(&database, &args).unwrap();
            assert!(said.starts_with("added 2 rows to sqlite:"), "{said}");
        }
        args.replace = true;
        args.dry_run = true;
        let said = imported(&database, &args).unwrap();
        assert!(said.ends_with(", and remove 4 rows\n"), "{said}");
        args.dry_run = false;
        let said = imported(&database, &args).unwrap();
        assert!(said.ends_with(", removed 4 rows\n"), "{said}");
        assert_eq!(exported(&database, Format::Csv), text);

        let copy = folder.path().join("copy.jsonl");
        std::fs::write(&copy, "an older file").unwrap();
        let args = ExportArgs {
            format: None,
            file: copy.clone(),
        };
        let mut out = Vec::new();
        export(&database, &args, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(
            said.starts_with("wrote 2 rows of sqlite:") && said.ends_with("copy.jsonl\n"),
            "{said}"
        );
        let mut args = import_args(&copy);
        args.replace = true;
        imported(&database, &args).unwrap();
        assert_eq!(exported(&database, Format::Csv), text);
        let names = std::fs::read_dir(folder.path()).unwrap();
        let drafts = names.filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_str().unwrap().ends_with(".new")
        });
        assert_eq!(drafts.count(), 0);
    }

    #[test]
    fn one_bad_row_keeps_all_out() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(&folder);
        let file = folder.path().join("address.list");
        std::fs::write(&file, "200 10.0.0.1\n0 10.0.0.2\n200 10.0.0.3 99\n").unwrap();
        let mut args = import_args(&file);
        let error = imported(&database, &args).unwrap_err().to_string();
        assert!(error.contains("add --format csv"), "{error}");
        args.format = Some(Format::AddressFile);
        let error = imported(&database, &args).unwrap_err().to_string();
        assert!(
            error.starts_with("2 rows of ") && error.ends_with("nothing was imported"),
            "{error}"
        );
        assert!(is_absent(&database));
        let missing = import_args(&folder.path().join("missing.csv"));
        let error = format!("{:#}", imported(&database, &missing).unwrap_err());
        assert!(
            error.contains("missing.csv") && error.contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_table_that_is_a_file_is_exported_but_not_imported_into() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address.list");
        std::fs::write(&file, "200 10.0.0.1 32 5060 a # first\n").unwrap();
        let database = database(&folder).with_address_file(&file);
        assert_eq!(
            exported(&database, Format::Csv),
            "grp,ip_addr,mask,port,tag\n200,10.0.0.1,32,5060,a\n"
        );
        let mut args = import_args(&file);
        args.dry_run = true;
        let error = imported(&database, &args).unwrap_err().to_string();
        assert!(
            error.contains("address.list") && error.contains("edit the file"),
            "{error}"
        );
    }
}

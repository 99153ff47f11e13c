//! Values of settings: what each kind allows, how it is written, and the one way it is shown.
//!
//! Promises: [`Kind::parse`] refuses in one sentence that names the value; what [`Value`] shows parses to the same
//! value; a size or a duration is shown in the largest unit that divides it.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf, time::Duration};

use tracing::level_filters::LevelFilter;

use crate::{
    replicated::{MAX_ADDRESS_LEN, setup::parse_founders},
    storage::data_dir::MAX_CLUSTER_NAME_LEN,
};

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A path of the file system.
    Path,
    /// `HOST:PORT`.
    Address,
    /// The least important events that are logged.
    Level,
    /// Bytes, from the least to the most.
    Size(u64, u64),
    /// A time, from the least to the most, in milliseconds.
    Time(u64, u64),
    /// A number, from the least to the most.
    Count(u64, u64),
    /// `true` or `false`.
    Switch,
    /// The founders of a cluster.
    Founders,
    /// A name on one line.
    Name,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Path`].
    Path(PathBuf),
    /// Of [`Kind::Address`], [`Kind::Name`] and [`Kind::Choice`].
    Text(String),
    /// Of [`Kind::Level`].
    Level(LevelFilter),
    /// Of [`Kind::Size`], in bytes.
    Size(u64),
    /// Of [`Kind::Time`].
    Time(Duration),
    /// Of [`Kind::Count`].
    Count(u64),
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Founders`].
    Founders(BTreeMap<u64, String>),
}

const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];
/// In milliseconds. `ms` stands before `m` and `s`, which it ends with or begins with.
const TIMES: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

impl Kind {
    /// The value that `text` means.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(self, text: OsString) -> Result<Value, String> {
        if self == Self::Path {
            if text.is_empty() {
                return Err("an empty path names nothing".to_owned());
            }
            return Ok(Value::Path(text.into()));
        }
        let text = text
            .into_string()
            .map_err(|_| "the value is not UTF-8 text".to_owned())?;
        Ok(match self {
            Self::Path => unreachable!("returned above"),
            Self::Address => Value::Text(check_addr(text)?),
            Self::Level => Value::Level(parse_level(&text)?),
            Self::Size(least, most) => Value::Size(parse_size(&text, (least, most))?),
            Self::Time(least, most) => {
                Value::Time(Duration::from_millis(parse_time(&text, (least, most))?))
            }
            Self::Count(least, most) => Value::Count(parse_count(&text, (least, most))?),
            Self::Switch => Value::Switch(match text.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(format!("{text:?} is neither true nor false")),
            }),
            Self::Founders => Value::Founders(parse_founders(&text, check_addr)?),
            Self::Name => Value::Text(check_name(text)?),
            Self::Choice(words) if words.contains(&text.as_str()) => Value::Text(text),
            Self::Choice(words) => {
                return Err(format!("{text:?} is none of {}", words.join(", ")));
            }
        })
    }

    /// What it is, with its unit and range, for a reader.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Path => "path".to_owned(),
            Self::Address => "HOST:PORT".to_owned(),
            Self::Level => "off, error, warn, info, debug or trace".to_owned(),
            Self::Size(least, most) => {
                format!("size, {} to {}", Value::Size(least), Value::Size(most))
            }
            Self::Time(least, most) => {
                let show = |millis| Value::Time(Duration::from_millis(millis)).to_string();
                format!("time, {} to {}", show(least), show(most))
            }
            Self::Count(least, u64::MAX) => format!("number from {least} on"),
            Self::Count(least, most) => format!("number, {least} to {most}"),
            Self::Switch => "true or false".to_owned(),
            Self::Founders => "ID=HOST:PORT,ID=HOST:PORT,...".to_owned(),
            Self::Name => format!("1 to {MAX_CLUSTER_NAME_LEN} plain characters"),
            Self::Choice(words) => words.join(", "),
        }
    }

    /// The word for its value in the help of the command line.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Path => "PATH",
            Self::Address => "HOST:PORT",
            Self::Level => "LEVEL",
            Self::Size(..) => "SIZE",
            Self::Time(..) => "TIME",
            Self::Count(..) => "N",
            Self::Switch => "BOOL",
            Self::Founders => "STORES",
            Self::Name => "NAME",
            Self::Choice(_) => "WORD",
        }
    }
}

impl Value {
    /// Bytes of a size.
    ///
    /// # Panics
    ///
    /// When it is of another kind, or larger than this machine addresses: the table of settings says otherwise.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Size(bytes) => usize::try_from(*bytes).expect("the range of the setting fits"),
            other => unreachable!("the table calls {other:?} a size"),
        }
    }

    /// A duration.
    ///
    /// # Panics
    ///
    /// When it is of another kind: the table of settings says otherwise.
    #[must_use]
    pub fn time(&self) -> Duration {
        match self {
            Self::Time(time) => *time,
            other => unreachable!("the table calls {other:?} a time"),
        }
    }

    /// A number.
    ///
    /// # Panics
    ///
    /// As [`Value::time`].
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Count(count) => *count,
            other => unreachable!("the table calls {other:?} a number"),
        }
    }

    /// A number or a size that the table keeps within 32 bits.
    ///
    /// # Panics
    ///
    /// As [`Value::time`].
    #[must_use]
    pub fn small(&self) -> u32 {
        match self {
            Self::Count(count) | Self::Size(count) => {
                u32::try_from(*count).expect("the range of the setting fits")
            }
            other => unreachable!("the table calls {other:?} a number"),
        }
    }

    /// A number of things in memory.
    ///
    /// # Panics
    ///
    /// As [`Value::time`].
    #[must_use]
    pub fn number(&self) -> usize {
        usize::try_from(self.count()).expect("the range of the setting fits")
    }

    /// A level of the log.
    ///
    /// # Panics
    ///
    /// As [`Value::time`].
    #[must_use]
    pub fn level(&self) -> LevelFilter {
        match self {
            Self::Level(level) => *level,
            other => unreachable!("the table calls {other:?} a level"),
        }
    }

    /// Whether a switch is on.
    ///
    /// # Panics
    ///
    /// As [`Value::time`].
    #[must_use]
    pub fn is_on(&self) -> bool {
        match self {
            Self::Switch(is_on) => *is_on,
            other => unreachable!("the table calls {other:?} a switch"),
        }
    }

    /// A path.
    ///
    /// # Panics
    ///
    /// As [`Value::time`].
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            other => unreachable!("the table calls {other:?} a path"),
        }
    }

    /// An address or a name.
    ///
    /// # Panics
    ///
    /// As [`Value::time`].
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => unreachable!("the table calls {other:?} a text"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Text(text) => f.write_str(text),
            Self::Level(level) => write!(f, "{level}"),
            Self::Size(bytes) => {
                let (unit, len) = SIZES
                    .into_iter()
                    .find(|(_, len)| *bytes != 0 && bytes.is_multiple_of(*len))
                    .unwrap_or(("", 1));
                write!(f, "{}{unit}", bytes / len)
            }
            Self::Time(time) => {
                let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let units = [TIMES[1], TIMES[2], TIMES[3], TIMES[0]];
                let (unit, len) = units
                    .into_iter()
                    .find(|(_, len)| millis != 0 && millis.is_multiple_of(*len))
                    .unwrap_or(TIMES[3]);
                write!(f, "{}{unit}", millis / len)
            }
            Self::Count(count) => write!(f, "{count}"),
            Self::Switch(is_on) => write!(f, "{is_on}"),
            Self::Founders(founders) => {
                let mut comma = "";
                for (id, address) in founders {
                    write!(f, "{comma}{id}={address}")?;
                    comma = ",";
                }
                Ok(())
            }
        }
    }
}

/// `HOST:PORT`, as far as its form goes.
fn check_addr(value: String) -> Result<String, String> {
    // Lists of addresses are written with commas and equals signs.
    let is_plain = value.len() <= MAX_ADDRESS_LEN
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'=');
    match value.rsplit_once(':') {
        Some((host, port)) if is_plain && !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(value)
        }
        _ => Err(format!("{value:?} is not an address of the form HOST:PORT")),
    }
}

/// A name that stands on one line of a file.
fn check_name(value: String) -> Result<String, String> {
    let is_plain = value
        .chars()
        .all(|char| char.is_ascii_graphic() || char == ' ');
    if value.trim() != value || value.is_empty() || !is_plain || value.len() > MAX_CLUSTER_NAME_LEN
    {
        return Err(format!(
            "{value:?} is no name of a cluster: 1 to {MAX_CLUSTER_NAME_LEN} plain characters"
        ));
    }
    Ok(value)
}

fn parse_level(value: &str) -> Result<LevelFilter, String> {
    Ok(match value {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => {
            let levels = "off, error, warn, info, debug or trace";
            return Err(format!("{value:?} is not a level: {levels}"));
        }
    })
}

/// A whole number with one of `units` behind it; the product.
fn with_unit(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((value.strip_suffix(suffix)?, unit)))?;
    digits_of(digits)?.checked_mul(*unit)
}

/// Digits and nothing else: no sign, no space.
fn digits_of(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// A number of bytes: digits, and `KiB`, `MiB` or `GiB` behind them.
fn parse_size(value: &str, (least, most): (u64, u64)) -> Result<u64, String> {
    let Some(bytes) = with_unit(value, &SIZES) else {
        return Err(format!(
            "{value:?} is not a size such as 1048576, 512KiB, 64MiB or 2GiB"
        ));
    };
    if bytes < least || bytes > most {
        return Err(format!("{bytes} bytes is outside of {least} to {most}"));
    }
    Ok(bytes)
}

/// Milliseconds: digits, and `ms`, `s`, `m` or `h` behind them.
fn parse_time(value: &str, (least, most): (u64, u64)) -> Result<u64, String> {
    let Some(millis) = with_unit(value, &TIMES) else {
        return Err(format!(
            "{value:?} is not a time such as 500ms, 10s, 5m or 1h"
        ));
    };
    if millis < least || millis > most {
        let show = |millis| Value::Time(Duration::from_millis(millis)).to_string();
        let (least, most) = (show(least), show(most));
        return Err(format!("{value} is outside of {least} to {most}"));
    }
    Ok(millis)
}

fn parse_count(value: &str, (least, most): (u64, u64)) -> Result<u64, String> {
    let Some(count) = digits_of(value) else {
        return Err(format!("{value:?} is not a whole number"));
    };
    if count < least || count > most {
        return Err(match most {
            u64::MAX => format!("{count} is not a number from {least} on"),
            _ => format!("{count} is outside of {least} to {most}"),
        });
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_parses_to_the_same_value() {
        let size = Kind::Size(0, u64::MAX);
        let time = Kind::Time(0, u64::MAX);
        for (kind, text, shown) in [
            (size, "0", "0"),
            (size, "1023", "1023"),
            (size, "1024", "1KiB"),
            (size, "1536KiB", "1536KiB"),
            (size, "2048MiB", "2GiB"),
            (time, "0s", "0s"),
            (time, "1500ms", "1500ms"),
            (time, "2000ms", "2s"),
            (time, "90s", "90s"),
            (time, "120s", "2m"),
            (time, "60m", "1h"),
            (Kind::Level, "warn", "warn"),
            (Kind::Switch, "true", "true"),
            (Kind::Count(0, 9), "9", "9"),
            (Kind::Founders, "2=b:1,1=a:1", "1=a:1,2=b:1"),
            (Kind::Path, "a b", "a b"),
        ] {
            let value = kind.parse(text.into()).unwrap();
            assert_eq!(value.to_string(), shown, "{text}");
            assert_eq!(kind.parse(shown.into()).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn values_outside_of_their_kind_are_refused_with_what_would_be_right() {
        let time = Kind::Time(100, 60_000);
        for (kind, text, words) in [
            (time, "10", "is not a time such as"),
            (time, "1.5s", "is not a time"),
            (time, "-1s", "is not a time"),
            (time, "s", "is not a time"),
            (time, "99ms", "outside of 100ms to 1m"),
            (time, "2h", "outside of 100ms to 1m"),
            (time, "99999999999999999999h", "is not a time"),
            (Kind::Count(1, 8), "0", "outside of 1 to 8"),
            (Kind::Count(1, 8), "9", "outside of 1 to 8"),
            (Kind::Count(1, 8), "1e1", "is not a whole number"),
            (Kind::Count(1, u64::MAX), "0", "a number from 1 on"),
            (Kind::Switch, "yes", "neither true nor false"),
            (Kind::Size(1, 2), "3", "outside of 1 to 2"),
        ] {
            let refusal = kind.parse(text.into()).unwrap_err();
            assert!(refusal.contains(words), "{text:?} gave {refusal:?}");
        }
    }
}

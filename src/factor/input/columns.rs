//! Which column of a panel is what.

use crate::error::{Error, Result};
use crate::factor::config::{Config, closest};

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Number,
    Boolean,
    Text,
    Date,
    /// Something that no role can use.
    Other,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Number => "numbers",
            Kind::Boolean => "true or false",
            Kind::Text => "text",
            Kind::Date => "dates",
            Kind::Other => "values of a type that is not supported",
        }
    }
}

/// A column: its name and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Which columns have which role, by their names.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Roles {
    pub(super) date: String,
    pub(super) asset: String,
    pub(super) price: Option<String>,
    pub(super) capitalisation: Option<String>,
    pub(super) volume: Option<String>,
    pub(super) benchmark: Option<String>,
    pub(super) industry: Option<String>,
    pub(super) flag: Option<String>,
    pub(super) factors: Vec<String>,
}

impl Roles {
    /// The columns that are read as numbers, in the order in which they are laid out.
    pub(super) fn numbers(&self) -> impl Iterator<Item = &str> {
        let roles = [&self.price, &self.capitalisation, &self.volume, &self.benchmark, &self.flag];
        let roles = roles.into_iter().flatten().map(String::as_str);
        roles.chain(self.factors.iter().map(String::as_str))
    }
}

/// Where a column is looked for that the configuration does not name: its key, and usual names.
pub const COLUMNS: [(&str, &[&str]); 8] = [
    ("date", &["date", "datetime", "trade_date", "time", "day"]),
    ("asset", &["asset", "code", "symbol", "ticker", "instrument", "id", "stock"]),
    ("price", &["price", "close", "adj_close", "adjclose"]),
    ("capitalisation", &["capitalisation", "mktcap", "market_cap", "marketcap", "cap"]),
    ("volume", &["volume", "turnover"]),
    ("benchmark", &["benchmark"]),
    ("industry", &["industry", "sector", "group"]),
    ("flag", &["flag", "flagged", "st", "is_st"]),
];

/// The roles of the columns of `source`. In wide input, `date` and `asset` are no columns.
pub(super) fn roles(
    source: &str,
    columns: &[Column],
    config: &Config,
    wide: bool,
) -> Result<Roles> {
    let input = &config.input;
    let named = [
        &input.date,
        &input.asset,
        &input.price,
        &input.capitalisation,
        &input.volume,
        &input.benchmark,
        &input.industry,
        &input.flag,
    ];
    let mut found: Vec<Option<String>> = Vec::new();
    for ((key, usual), name) in COLUMNS.into_iter().zip(named) {
        let key_column = matches!(key, "date" | "asset");
        let column = match name {
            _ if wide && key_column => None,
            Some(name) => Some(find(source, columns, name, &format!("input.{key}"))?),
            // Usual names count in any case of letters.
            None => usual.iter().find_map(|usual| {
                columns.iter().find(|column| column.name.eq_ignore_ascii_case(usual))
            }),
        };
        if let Some(column) = column {
            let fits = match key {
                "date" => matches!(column.kind, Kind::Date | Kind::Number | Kind::Text),
                "asset" | "industry" => matches!(column.kind, Kind::Number | Kind::Text),
                "flag" => matches!(column.kind, Kind::Number | Kind::Boolean),
                _ => column.kind == Kind::Number,
            };
            if !fits {
                return Err(Error::input(format!(
                    "{source}: the column '{}' ({key}) holds {}",
                    column.name,
                    column.kind.name()
                )));
            }
        } else if key_column && !wide {
            return Err(Error::input(format!(
                "{source}: no column of {key}s; name it in [input] as '{key}'; {}",
                list(columns)
            )));
        }
        found.push(column.map(|column| column.name.clone()));
    }
    let factors = factors(source, columns, config, &found)?;
    let mut found = found.into_iter();
    let mut next = || found.next().flatten();
    let (date, asset) = (next().unwrap_or_default(), next().unwrap_or_default());
    let (price, capitalisation, volume) = (next(), next(), next());
    let (benchmark, industry, flag) = (next(), next(), next());
    Ok(Roles { date, asset, price, capitalisation, volume, benchmark, industry, flag, factors })
}

fn factors(
    source: &str,
    columns: &[Column],
    config: &Config,
    taken: &[Option<String>],
) -> Result<Vec<String>> {
    let excluded = &config.factors.exclude;
    for name in excluded {
        find(source, columns, name, "factors.exclude")?;
    }
    let mut factors: Vec<String> = Vec::new();
    for name in &config.factors.columns {
        let column = find(source, columns, name, "factors.columns")?;
        if column.kind != Kind::Number {
            let kind = column.kind.name();
            return Err(Error::input(format!("{source}: the factor '{name}' holds {kind}")));
        }
        if factors.contains(name) {
            return Err(Error::input(format!("factors.columns: '{name}' stands there twice")));
        }
        factors.push(name.clone());
    }
    if config.factors.columns.is_empty() {
        let free = |name: &String| {
            !excluded.contains(name) && !taken.iter().flatten().any(|taken| taken == name)
        };
        let numeric = columns.iter().filter(|column| column.kind == Kind::Number);
        factors = numeric.map(|column| column.name.clone()).filter(free).collect();
    }
    Ok(factors)
}

/// The column `name`, or an error that lists those there are.
pub(super) fn find<'c>(
    source: &str,
    columns: &'c [Column],
    name: &str,
    key: &str,
) -> Result<&'c Column> {
    if let Some(column) = columns.iter().find(|column| column.name == name) {
        return Ok(column);
    }
    let meant = closest(name, columns.iter().map(|column| &column.name[..]));
    let meant = meant.map_or(String::new(), |meant| format!("did you mean '{meant}'? "));
    Err(Error::input(format!("{source}: no column '{name}' ({key}); {meant}{}", list(columns))))
}

fn list(columns: &[Column]) -> String {
    const SHOWN: usize = 40;
    let names: Vec<&str> = columns.iter().take(SHOWN).map(|column| &column.name[..]).collect();
    let more = columns.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("there are {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &str) -> Vec<Column> {
        let kind = |name: &str| match name {
            "day" => Kind::Date,
            "code" | "name" => Kind::Text,
            "st" => Kind::Boolean,
            _ => Kind::Number,
        };
        names.split(' ').map(|name| Column { name: name.into(), kind: kind(name) }).collect()
    }

    #[test]
    fn usual_names_are_found_and_the_rest_are_factors() {
        let all = columns("day code name Close cap st f1 f2 volume");
        let mut config = Config::default();
        let found = roles("p", &all, &config, false).unwrap();
        assert_eq!((&found.date[..], &found.asset[..]), ("day", "code"));
        assert_eq!(found.price.as_deref(), Some("Close"));
        assert_eq!(found.flag.as_deref(), Some("st"));
        assert_eq!(found.factors, ["f1", "f2"]);
        config.input.price = Some("f1".into());
        config.factors.exclude = vec!["f2".into()];
        let found = roles("p", &all, &config, false).unwrap();
        assert_eq!(found.factors, ["Close"]);
        config.factors.columns = vec!["f2".into()];
        assert_eq!(roles("p", &all, &config, false).unwrap().factors, ["f2"]);
    }

    #[test]
    fn unknown_columns_are_answered_with_those_there_are() {
        let all = columns("day code f1 mometum");
        let mut config = Config::default();
        config.factors.columns = vec!["momentum".into()];
        let message = roles("p", &all, &config, false).unwrap_err().message;
        assert_eq!(
            message,
            "p: no column 'momentum' (factors.columns); did you mean 'mometum'? there are day, \
             code, f1, mometum"
        );
        config.factors.columns = vec!["code".into()];
        let message = roles("p", &all, &config, false).unwrap_err().message;
        assert_eq!(message, "p: the factor 'code' holds text");
        let message = roles("p", &columns("code f1"), &config, false).unwrap_err().message;
        assert!(message.contains("no column of dates"), "{message}");
        config.input.price = Some("code".into());
        assert!(roles("p", &all, &config, false).unwrap_err().message.contains("(price)"));
    }
}

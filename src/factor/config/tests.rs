//! Tests of the configuration: the template is the defaults, presets, and messages.

use super::*;

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, Path::new("run.toml"))
}

#[test]
fn the_template_holds_all_keys_at_their_defaults() {
    assert_eq!(parse(TEMPLATE).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    // Optional keys stand in comments; all together they are every key there is.
    let open: String = TEMPLATE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split(" = ").count() == 2 && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let config = parse(&open).unwrap();
    assert_eq!(config.input.price.as_deref(), Some("close"));
    let keys = |table: &Table| {
        let mut keys = Vec::new();
        for (section, value) in table {
            match value {
                Value::Table(table) => keys.extend(table.keys().map(|k| format!("{section}.{k}"))),
                _ => keys.push(section.clone()),
            }
        }
        keys.sort();
        keys
    };
    let written: Table = toml::from_str(&open).unwrap();
    let all = Table::try_from(config).unwrap();
    assert_eq!(keys(&written), keys(&all));
}

#[test]
fn keys_win_over_the_preset_and_the_preset_over_defaults() {
    let config = parse("preset = \"joinquant\"\n[winsorise]\nn = 5\n").unwrap();
    assert_eq!((config.winsorise.n, config.winsorise.scale), (5.0, 1.0));
    assert_eq!(config.neutralise.capitalisation, Capitalisation::Raw);
    assert_eq!((config.standardise.ddof, config.ic.ddof), (0, 1));
    assert_eq!(config.portfolio.days_per_year, 250.0);
    let config = parse("preset = \"alphalens\"\nreturns.horizons = [1, 5, 20]").unwrap();
    assert_eq!(config.winsorise.method, WinsoriseMethod::None);
    assert!(!config.neutralise.industry && config.returns.fill_prices);
    assert_eq!(config.returns.missing, Missing::AllHorizons);
    assert_eq!(config.returns.horizons, [1, 5, 20]);
    let config = Config::preset(Preset::Qlib).unwrap();
    assert_eq!((config.preset, config.returns.delay), (Preset::Qlib, 1));
    assert_eq!((config.quantiles.spread_divisor, config.portfolio.days_per_year), (2.0, 238.0));
    let config = Config::preset(Preset::Barra).unwrap();
    assert_eq!(config.neutralise.weights, RegressionWeights::SqrtCap);
    assert_eq!(config.standardise.mean, MeanWeights::Cap);
    for preset in [Preset::None, Preset::Joinquant, Preset::Alphalens, Preset::Qlib, Preset::Barra]
    {
        let config = Config::preset(preset).unwrap();
        config.validate().unwrap();
        let name = Value::try_from(preset).unwrap();
        assert_eq!(parse(&format!("preset = \"{}\"", name.as_str().unwrap())).unwrap(), config);
    }
}

#[test]
fn errors_name_the_line_the_key_and_what_was_meant() {
    for (text, what) in [
        ("[winsorize]\nn = 3", "line 1: winsorize: unknown key 'winsorize'; did you mean"),
        (
            "\n[winsorise]\nn = 3\nmetod = \"mad\"",
            "line 4: winsorise.metod: unknown key 'metod'; did you mean 'method'?",
        ),
        (
            "[winsorise]\nmethod = \"madd\"",
            "line 2: winsorise.method: unknown value 'madd'; did you mean 'mad'?",
        ),
        (
            "[winsorise]\nmethod = \"tanh\"",
            "line 2: winsorise.method: unknown value 'tanh'; expected one of none, mad, sigma, ",
        ),
        ("[winsorise]\nn = \"3\"", "line 2: winsorise.n: invalid type: string \"3\""),
        ("preset = \"joinqant\"", "line 1: preset: unknown value 'joinqant'; did you mean"),
        ("[ic]\nddof = 2", "line 2: ic.ddof: expected 0 or 1"),
        ("[ic]\nddof = -1", "line 2: ic.ddof: "),
        ("[returns]\nhorizons = []", "line 2: returns.horizons: expected one"),
        ("[returns]\nhorizons = [1, 5, 1]", "line 2: returns.horizons: the same"),
        ("[screening]\nhorizon = 3", "line 2: screening.horizon: expected one of"),
        ("[ic\n", "line 1: "),
        ("[factors]\ntechnical = [{ kind = \"momentum\", windw = 3 }]", "line 2: "),
        (
            "[factors]\ntechnical = [{ kind = \"momentum\", window = 3, skip = 3 }]",
            "line 2: factors.technical: momentum_3_3: skip is less",
        ),
    ] {
        let error = parse(text).unwrap_err();
        let message = error.message.strip_prefix("run.toml ").unwrap_or(&error.message);
        assert!(message.starts_with(what), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message:?}");
        assert_eq!(error.exit_code(), 2);
    }
    assert!(Config::load(Path::new("/nowhere/run.toml")).unwrap_err().message.contains("nowhere"));
}

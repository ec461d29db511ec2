//! The sections of a configuration, as plain data. `template.toml` documents every key; a test
//! keeps its values equal to the defaults here.

use serde::{Deserialize, Serialize};

/// Enums whose values are lower-case words in the file.
macro_rules! words {
    ($($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $value:ident,)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $value,)+ }
    )+};
}

words! {
    /// What tables are written as.
    TableFormat {
        /// Text.
        #[default]
        Csv,
        /// Typed columns.
        Parquet,
    }
    /// A known tool whose options are to be copied.
    Preset {
        /// No preset.
        #[default]
        None,
        /// jqfactor_analyzer.
        Joinquant,
        /// alphalens-reloaded.
        Alphalens,
        /// qlib.
        Qlib,
        /// Barra CNE5/USE4 exposures.
        Barra,
    }
    /// How the input is laid out.
    Layout {
        /// A folder with `.npy` files is wide, anything else long.
        #[default]
        Auto,
        /// A table with one row for each date and asset.
        Long,
        /// One date × asset matrix for each field, each in a file of its own.
        Wide,
    }
    /// What an infinite value in the input is.
    Infinite {
        /// An error that names its file and row.
        #[default]
        Error,
        /// A missing value.
        Missing,
    }
    /// What becomes of a missing factor value.
    FillMethod {
        /// It stays missing, and the asset is left out where the value is needed.
        #[default]
        None,
        /// The mean of the industry on the day.
        IndustryMean,
        /// The asset is dropped on the day from all factors.
        Drop,
    }
    /// How outliers are bounded.
    WinsoriseMethod {
        /// Not at all.
        None,
        /// At the median ± n · scale · MAD.
        #[default]
        Mad,
        /// At the mean ± n · standard deviation.
        Sigma,
        /// At two quantiles.
        Quantile,
    }
    /// What a median absolute deviation of zero means.
    ZeroMad {
        /// Values stay as they are.
        #[default]
        Keep,
        /// All values become the median, as the formula says.
        Clip,
    }
    /// How capitalisation enters the neutralisation.
    Capitalisation {
        /// Not at all.
        None,
        /// Its natural logarithm.
        #[default]
        Log,
        /// As it is.
        Raw,
    }
    /// Weights of the neutralising regression.
    RegressionWeights {
        /// All one: ordinary least squares.
        #[default]
        Ols,
        /// The square root of the capitalisation.
        SqrtCap,
    }
    /// How a cross-section is brought to one scale.
    StandardiseMethod {
        /// Not at all.
        None,
        /// (x - mean) / standard deviation.
        #[default]
        Zscore,
        /// The normal quantile of (rank - 0.5) / n.
        RankNormal,
    }
    /// Which mean a z-score subtracts.
    MeanWeights {
        /// The plain one.
        #[default]
        Equal,
        /// The one weighted by capitalisation.
        Cap,
    }
    /// Which assets count for a horizon.
    Missing {
        /// Those with a factor value and the return of this horizon.
        #[default]
        Pairwise,
        /// Those with a factor value and the returns of all horizons.
        AllHorizons,
    }
    /// Which correlation steers composites and screening.
    Correlation {
        /// Of ranks (Spearman).
        #[default]
        Rank,
        /// Of values (Pearson).
        Pearson,
    }
    /// How quantiles are cut.
    Binning {
        /// By rank; equal values stay together in the bin of their average rank.
        #[default]
        Rank,
        /// At the edges of `pandas.qcut`; a date whose edges coincide is dropped.
        Qcut,
        /// As qlib: the n / count highest and lowest assets, ties in the order of assets.
        Tails,
    }
    /// What is subtracted from forward returns before quantile means.
    Demean {
        /// Nothing.
        None,
        /// The mean of the day.
        #[default]
        Date,
        /// The mean of the industry on the day.
        Industry,
    }
    /// How a composite weights its factors.
    CompositeWeights {
        /// All alike.
        #[default]
        Equal,
        /// By mean information coefficient over the window.
        Ic,
        /// By mean over standard deviation.
        Ir,
        /// So that the composite's own mean over standard deviation is largest.
        MaxIr,
    }
    /// Which assets a portfolio holds.
    Selection {
        /// The `top` highest ones.
        #[default]
        Top,
        /// The highest quantile.
        Quantile,
    }
    /// The language of reports.
    Language {
        /// English.
        #[default]
        En,
        /// Chinese.
        Zh,
    }
}

/// Structs whose missing keys have defaults and whose unknown keys are errors.
macro_rules! sections {
    ($($(#[$about:meta])* $name:ident {
        $($(#[$doc:meta])* $field:ident: $kind:ty = $value:expr,)+
    })+) => {$(
        $(#[$about])*
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$doc])* pub $field: $kind,)+ }

        impl Default for $name {
            fn default() -> Self { $name { $($field: $value,)+ } }
        }
    )+};
}

sections! {
    /// Everything that a factor run can be told.
    Config {
        /// Whose options are the defaults of the keys that the file does not set.
        preset: Preset = Preset::None,
        /// Where the columns are.
        input: Input = Input::default(),
        /// Which assets take part.
        universe: Universe = Universe::default(),
        /// Which factors.
        factors: Factors = Factors::default(),
        /// Missing values.
        fill: Fill = Fill::default(),
        /// Outliers.
        winsorise: Winsorise = Winsorise::default(),
        /// Industry and size.
        neutralise: Neutralise = Neutralise::default(),
        /// Scale.
        standardise: Standardise = Standardise::default(),
        /// Forward returns.
        returns: Returns = Returns::default(),
        /// Information coefficients and their statistics.
        ic: Ic = Ic::default(),
        /// Returns by quantile.
        quantiles: Quantiles = Quantiles::default(),
        /// Regressions of returns on all factors at once.
        fama_macbeth: FamaMacbeth = FamaMacbeth::default(),
        /// Factors made of factors.
        composites: Composites = Composites::default(),
        /// Stepwise choice of factors.
        screening: Screening = Screening::default(),
        /// The portfolio test.
        portfolio: Portfolio = Portfolio::default(),
        /// Output for people.
        report: Report = Report::default(),
    }
    /// Where the columns of the panel are. A column that is not named is looked for under its
    /// usual names (see `COLUMNS` in `input`).
    Input {
        /// Long or wide.
        layout: Layout = Layout::Auto,
        /// The column of dates.
        date: Option<String> = None,
        /// The column of assets.
        asset: Option<String> = None,
        /// The column of prices.
        price: Option<String> = None,
        /// The column of industries.
        industry: Option<String> = None,
        /// The column of market capitalisations.
        capitalisation: Option<String> = None,
        /// The column of volumes or turnovers.
        volume: Option<String> = None,
        /// The column that marks special treatment.
        flag: Option<String> = None,
        /// The column with the price of the benchmark, equal for all assets of a date.
        benchmark: Option<String> = None,
        /// What infinite values are.
        infinite: Infinite = Infinite::Error,
    }
    /// Which assets take part, day by day.
    Universe {
        /// Industries to keep; all if empty.
        industries: Vec<String> = Vec::new(),
        /// Whether flagged assets are left out.
        exclude_flagged: bool = false,
        /// Dates with a price that an asset must have had, this one included.
        minimum_history: usize = 0,
    }
    /// Which factors are analysed.
    Factors {
        /// Columns; all numeric ones that are nothing else if empty.
        columns: Vec<String> = Vec::new(),
        /// Columns to leave out.
        exclude: Vec<String> = Vec::new(),
        /// Factors computed from prices and volumes.
        technical: Vec<Technical> = Vec::new(),
    }
    /// What becomes of missing factor values.
    Fill {
        /// How.
        method: FillMethod = FillMethod::None,
    }
    /// How outliers are bounded.
    Winsorise {
        /// How.
        method: WinsoriseMethod = WinsoriseMethod::Mad,
        /// How many deviations are allowed (`mad`, `sigma`).
        n: f64 = 3.0,
        /// What a median absolute deviation is multiplied by: 1.4826 estimates sigma.
        scale: f64 = 1.4826,
        /// A MAD of zero.
        zero_mad: ZeroMad = ZeroMad::Keep,
        /// The lower quantile (`quantile`).
        lower: f64 = 0.025,
        /// The upper quantile (`quantile`).
        upper: f64 = 0.975,
        /// Degrees of freedom lost by the standard deviation (`sigma`).
        ddof: u32 = 1,
    }
    /// What is regressed out.
    Neutralise {
        /// Dummies of the industries.
        industry: bool = true,
        /// Market capitalisation.
        capitalisation: Capitalisation = Capitalisation::Log,
        /// A constant, if there are no dummies (which contain it).
        intercept: bool = false,
        /// Weights of the regression.
        weights: RegressionWeights = RegressionWeights::Ols,
    }
    /// How a cross-section is brought to one scale.
    Standardise {
        /// How.
        method: StandardiseMethod = StandardiseMethod::Zscore,
        /// Degrees of freedom lost by the standard deviation: 0 or 1.
        ddof: u32 = 1,
        /// Which mean is subtracted.
        mean: MeanWeights = MeanWeights::Equal,
    }
    /// Forward returns.
    Returns {
        /// How many dates ahead.
        horizons: Vec<usize> = vec![1, 5, 20],
        /// Dates between the factor and the price that is bought at.
        delay: usize = 0,
        /// Whether a missing price is the last known one.
        fill_prices: bool = false,
        /// Which assets count.
        missing: Missing = Missing::Pairwise,
    }
    /// Information coefficients.
    Ic {
        /// Whether Pearson coefficients are wanted besides those of ranks.
        pearson: bool = true,
        /// Whether factors are correlated with each other; screening does it in any case.
        correlations: bool = true,
        /// Fewer pairs give no coefficient.
        minimum_pairs: usize = 3,
        /// Degrees of freedom lost by the standard deviation over dates.
        ddof: u32 = 1,
        /// Lags of the Newey-West t statistic; horizon - 1 if not set.
        newey_west_lags: Option<usize> = None,
        /// Lags of the decay and of the autocorrelation.
        decay_lags: usize = 10,
    }
    /// Returns by quantile.
    Quantiles {
        /// Whether groups are made; with them the factor-weighted portfolio, turnover, decay.
        enabled: bool = true,
        /// How many.
        count: usize = 5,
        /// How they are cut.
        binning: Binning = Binning::Rank,
        /// What returns are relative to.
        demean: Demean = Demean::Date,
        /// What top minus bottom is divided by.
        spread_divisor: f64 = 1.0,
    }
    /// Regressions of Fama and MacBeth.
    FamaMacbeth {
        /// Whether to regress.
        enabled: bool = true,
        /// The factors that enter; all if empty.
        factors: Vec<String> = Vec::new(),
        /// Dates with fewer complete assets are skipped; factors + 2 are needed in any case.
        minimum_assets: usize = 10,
        /// Lags of the Newey-West t statistic, horizon - 1 at least.
        newey_west_lags: Option<usize> = None,
    }
    /// Composites of factors.
    Composites {
        /// One for each kind of weights and window.
        weights: Vec<CompositeWeights> = Vec::new(),
        /// Dates that the weights look back on.
        windows: Vec<usize> = vec![60, 120, 250],
        /// The horizon whose coefficients count; the first one if not set.
        horizon: Option<usize> = None,
        /// Which coefficients count.
        correlation: Correlation = Correlation::Rank,
        /// The factors that they are made of; all if empty.
        factors: Vec<String> = Vec::new(),
    }
    /// Stepwise choice of factors.
    Screening {
        /// Whether to choose.
        enabled: bool = false,
        /// At most this many; 0 means no limit.
        most: usize = 0,
        /// A factor needs this t statistic at least.
        minimum_t: f64 = 2.0,
        /// A factor that correlates more with a chosen one is left out.
        maximum_correlation: f64 = 0.7,
        /// The horizon that decides; the first one if not set.
        horizon: Option<usize> = None,
    }
    /// The portfolio test.
    Portfolio {
        /// Whether to test.
        enabled: bool = true,
        /// Which assets are held.
        select: Selection = Selection::Top,
        /// How many (`top`).
        top: usize = 50,
        /// The highest of how many quantiles (`quantile`).
        quantiles: usize = 5,
        /// Dates between two rebalancings.
        rebalance: usize = 20,
        /// Cost of buying or selling, as a share of the traded value.
        cost: f64 = 0.0,
        /// Dates in a year.
        days_per_year: f64 = 252.0,
        /// Factors and composites to test; all if empty.
        factors: Vec<String> = Vec::new(),
    }
    /// Output for people.
    Report {
        /// Its language.
        language: Language = Language::En,
        /// Its title.
        title: String = String::new(),
        /// What tables are written as.
        tables: Vec<TableFormat> = vec![TableFormat::Csv],
    }
}

words! {
    /// A factor that is computed from prices and volumes; `technical` has the formulas.
    TechnicalKind {
        /// Return over the window, without the last `skip` dates.
        #[default]
        Momentum,
        /// Minus the return over the window.
        Reversal,
        /// Standard deviation of daily returns.
        Volatility,
        /// Standard deviation of the negative daily returns around 0.
        DownsideVolatility,
        /// Third standardised moment of daily returns.
        Skewness,
        /// The largest daily return.
        MaximumReturn,
        /// Price over its moving average, less 1.
        MovingAverageGap,
        /// Price over its highest in the window, less 1.
        HighGap,
        /// The largest loss from a high, as a positive number.
        MaximumDrawdown,
        /// The mean volume.
        Turnover,
        /// Volume over its mean, less 1.
        VolumeRatio,
        /// Mean of |return| / (price · volume).
        Illiquidity,
    }
}

/// A technical factor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Technical {
    /// Which formula.
    pub kind: TechnicalKind,
    /// How many dates it looks at.
    pub window: usize,
    /// How many of the latest dates it leaves out (`momentum`).
    #[serde(default)]
    pub skip: usize,
    /// Its name; `kind_window` or `kind_window_skip` if not set.
    pub name: Option<String>,
}

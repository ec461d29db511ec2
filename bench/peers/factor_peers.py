#!/usr/bin/env python3
"""Factor studies side by side with numpy, polars, alphalens-reloaded and jqfactor-analyzer, from
one Parquet file.

Makes a panel with `rankwise factor generate` (30 industries, gaps, ties, late listings) and runs
MAD (3 x 1.4826) -> industry + log-cap neutralise -> z -> rank IC at horizons 1, 5 and 20 -> summary
with every program, each in a process of its own. Prints the largest difference of the IC tables,
seconds from the file to the summary (ours: of the whole process; the others': without their
imports), processor seconds, and
peak memory. Everything is also given as a ratio to `rankwise` on one rank.

alphalens is run on two factors, after the same preprocessing date by date in pandas, and its time
is scaled by the number of factors. It fills prices and drops rows by rules of its own, so its
coefficients are shown but not held to agree.

jqfactor-analyzer is run on the same two factors with its own functions and their defaults:
winsorize_med, neutralize (industries and raw cap), standardlize, compute_forward_returns (1, 5, 10)
and factor_information_coefficient, against `rankwise` with `preset = "joinquant"`; rank and Pearson
coefficients agree to 1e-12. The exposures that its functions make also agree to 1e-12 with those
that the unit tests hold the preset to (tests/data/factor). Where it needs help:

* `neutralize` asks for the option mode.use_inf_as_null, which pandas 2 removed; it is put back here
  (there are no infinities for it to act on).
* The class FactorAnalyzer calls stack(dropna=), which pandas 3 refuses; it is left out, and so is
  its time.
* Capitalisations are given in units of the largest one, which changes no residual: in their own
  units its pseudo-inverse of the whole design loses ten digits (exposures of the unit tests are
  5.7e-6 off).
* Assets without a capitalisation or an industry are taken out before winsorize_med, as `rankwise`
  does, whose median is over the assets that are then neutralised.

    python3 -m venv bench/peers/.venv
    bench/peers/.venv/bin/pip install numpy scipy polars alphalens-reloaded jqfactor-analyzer tqdm
    bench/peers/.venv/bin/python bench/peers/factor_peers.py --binary target/release/rankwise \
        [--size small|full] [--peers numpy,polars,alphalens,jqfactor] [--mpirun]
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

# Spinning BLAS threads would count as processor time of programs that do not use them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

HORIZONS = (1, 5, 20)
SIZES = {"small": (300, 250, 8), "full": (2000, 1000, 20)}
SAMPLE = ("f00", "f01")
CONFIG = """\
[winsorise]
method = "mad"
n = 3.0
scale = 1.4826
[neutralise]
industry = true
capitalisation = "log"
[standardise]
method = "zscore"
ddof = 1
[returns]
horizons = [1, 5, 20]
# Nothing else, as in the other programs.
[ic]
pearson = false
correlations = false
[quantiles]
enabled = false
[fama_macbeth]
enabled = false
[portfolio]
enabled = false
"""
JQ_HORIZONS = (1, 5, 10)
JQ_CONFIG = """\
preset = "joinquant"
[ic]
correlations = false
[quantiles]
enabled = false
[fama_macbeth]
enabled = false
[portfolio]
enabled = false
"""
# What the unit tests compare with: a small panel, and what the tool makes of these factors.
UNIT_DATA = os.path.join(os.path.dirname(__file__), "../../tests/data/factor")
UNIT_FACTORS = (0, 1, 3, 4, 5)


def names_of(columns):
    return sorted(name for name in columns if name[0] == "f" and name[1:].isdigit())


def read_matrices(path):
    """Dates x assets matrices of prices, log caps, industries and factors."""
    import polars as pl

    table = pl.read_parquet(path)
    names = names_of(table.columns)
    dates, rows = np.unique(table["date"].to_physical().to_numpy(), return_inverse=True)
    assets, columns = np.unique(table["asset"].to_numpy(), return_inverse=True)
    shape = (len(dates), len(assets))

    def matrix(series, missing=np.nan, dtype=np.float64):
        whole = np.full(shape, missing, dtype)
        whole[rows, columns] = series.to_numpy()
        return whole

    industry = matrix(table["industry"].cast(pl.Categorical).to_physical().fill_null(-1)
                      .cast(pl.Int64), -1, np.int64)
    factors = {name: matrix(table[name]) for name in names}
    return matrix(table["close"]), np.log(matrix(table["mktcap"])), industry, factors


def process(x, groups, log_cap):
    """The residual z-scores of one cross-section without gaps."""
    middle = np.median(x)
    reach = 3 * 1.4826 * np.median(np.abs(x - middle))
    if reach > 0:
        x = np.clip(x, middle - reach, middle + reach)
    counts = np.bincount(groups)
    counts[counts == 0] = 1
    x = x - (np.bincount(groups, x) / counts)[groups]
    cap = log_cap - (np.bincount(groups, log_cap) / counts)[groups]
    x = x - cap * (x @ cap / (cap @ cap))
    x = x - x.mean()
    return x / x.std(ddof=1)


def numpy_ic(path):
    """Rank IC: dates x factors x horizons."""
    from scipy.stats import rankdata

    price, log_cap, industry, factors = read_matrices(path)
    dates = len(price)
    returns = []
    for h in HORIZONS:
        ahead = np.full_like(price, np.nan)
        ahead[:-h] = price[h:] / price[:-h] - 1
        returns.append(ahead)
    table = np.full((dates, len(factors), len(HORIZONS)), np.nan)
    for t in range(dates):
        usable = np.isfinite(log_cap[t]) & (industry[t] >= 0)
        for k, values in enumerate(factors.values()):
            there = np.flatnonzero(usable & np.isfinite(values[t]))
            x = values[t][there]
            if len(x) < 3 or x.std() <= 1e-12 * np.abs(x).max():
                continue
            z = process(x, industry[t][there], log_cap[t][there])
            for h, ahead in enumerate(returns):
                r = ahead[t][there]
                both = np.isfinite(r)
                if both.sum() >= 3:
                    a, b = rankdata(z[both]), rankdata(r[both])
                    a, b = a - a.mean(), b - b.mean()
                    size = np.sqrt((a @ a) * (b @ b))
                    table[t, k, h] = a @ b / size if size > 0 else np.nan
    return table


def polars_ic(path):
    import polars as pl

    table = pl.scan_parquet(path)
    names = names_of(table.collect_schema().names())
    close, day, group = pl.col("close"), "date", ["date", "industry"]
    returns = [(close.shift(-h).over("asset") / close - 1).alias(f"r{h}") for h in HORIZONS]
    table = table.sort("asset", "date").with_columns(pl.col("mktcap").log().alias("cap"), *returns)
    x, cap, there = pl.col(names), pl.col("cap"), pl.col("industry").is_not_null()
    table = table.with_columns(pl.when(there & cap.is_not_null()).then(x).name.keep())
    middle = x.median().over(day)
    table = table.with_columns((x - middle).abs().median().over(day).name.suffix("_mad"),
                               middle.name.suffix("_mid"))
    mad = {n: pl.col(n + "_mad") * (3 * 1.4826) for n in names}
    table = table.with_columns([
        pl.when(mad[n] > 0)
        .then(pl.col(n).clip(pl.col(n + "_mid") - mad[n], pl.col(n + "_mid") + mad[n]))
        .otherwise(pl.col(n)).alias(n) for n in names])
    # The capitalisation is demeaned over the assets that have the factor.
    table = table.with_columns(
        [(pl.col(n) - pl.col(n).mean().over(group)).alias(n) for n in names]
        + [pl.when(pl.col(n).is_not_null()).then(cap).alias(n + "_cap") for n in names])
    caps = pl.col([n + "_cap" for n in names])
    table = table.with_columns(caps - caps.mean().over(group))
    table = table.with_columns([
        (pl.col(n) - pl.col(n + "_cap") * ((pl.col(n) * pl.col(n + "_cap")).sum()
         / (pl.col(n + "_cap") ** 2).sum()).over(day)).alias(n) for n in names])
    table = table.with_columns((x - x.mean().over(day)) / x.std().over(day))
    coefficients = [pl.corr(pl.col(n).fill_nan(None), pl.col(f"r{h}").fill_nan(None),
                            method="spearman").alias(f"{n} {h}") for n in names for h in HORIZONS]
    found = table.group_by(day).agg(coefficients).sort(day).drop(day).collect()
    return found.to_numpy().reshape(len(found), len(names), len(HORIZONS))


def alphalens_ic(path):
    """The coefficients of SAMPLE alone."""
    import alphalens as al
    import pandas as pd
    import polars as pl

    columns = ["date", "asset", "industry", "mktcap", "close", *SAMPLE]
    table = pl.read_parquet(path, columns=columns).to_dict(as_series=False)
    table = pd.DataFrame(table)
    table["date"] = pd.to_datetime(table["date"])
    prices = table.pivot(index="date", columns="asset", values="close")
    found = []
    for name in SAMPLE:
        rows = table.dropna(subset=[name, "mktcap", "industry"])

        def day(rows):
            if len(rows) < 3:
                return pd.Series(np.nan, rows.index)
            groups = pd.factorize(rows["industry"])[0]
            z = process(rows[name].to_numpy(), groups, np.log(rows["mktcap"].to_numpy()))
            return pd.Series(z, rows.index)

        z = pd.concat([day(part) for _, part in rows.groupby("date")])
        factor = rows.assign(z=z).dropna(subset=["z"]).set_index(["date", "asset"])["z"]
        clean = al.utils.get_clean_factor_and_forward_returns(
            factor, prices, periods=HORIZONS, quantiles=5, max_loss=1.0)
        ic = al.performance.factor_information_coefficient(clean)
        al.performance.mean_information_coefficient(clean)
        found.append(ic.reindex(prices.index).to_numpy())
    return np.stack(found, axis=1)


def jq_functions():
    """The modules of jqfactor-analyzer, made to run under this pandas."""
    import pandas as pd
    from jqfactor_analyzer import performance, prepare, preprocess
    from pandas._config import config

    try:
        pd.get_option("mode.use_inf_as_null")
    except KeyError:  # pandas.errors.OptionError is one
        config.register_option("mode.use_inf_as_null", False)
    return performance, prepare, preprocess


def jq_exposures(values, cap, industry):
    """The processed values of a date x asset table, by jqfactor-analyzer with its defaults."""
    import pandas as pd

    _, _, preprocess = jq_functions()
    # Rankwise takes assets that cannot be neutralised out first; here they would still count in the
    # median.
    bounded = preprocess.winsorize_med(values.where(cap.notna() & industry.notna()))
    rows = []
    for date, row in bounded.iterrows():
        # Its own source of industries gives 0 for an unknown one; such assets are left out here.
        dummies = pd.get_dummies(industry.loc[date]).astype(float)
        dummies = dummies.where(industry.loc[date].notna(), axis=0)
        size = cap.loc[date] / cap.loc[date].max()
        exposure = pd.concat([dummies, size.rename("mktcap")], axis=1)
        rows.append(preprocess.neutralize(row, how=exposure))
    return preprocess.standardlize(pd.DataFrame(rows, index=bounded.index))


def jq_ic(path):
    """Pearson and rank coefficients of SAMPLE: 2 x dates x factors x horizons."""
    import pandas as pd
    import polars as pl
    from scipy import stats

    performance, prepare, _ = jq_functions()
    columns = ["date", "asset", "industry", "mktcap", "close", *SAMPLE]
    table = pd.DataFrame(pl.read_parquet(path, columns=columns).to_dict(as_series=False))
    table["date"] = pd.to_datetime(table["date"])
    table["asset"] += ".XSHE"  # it refuses other codes
    wide = table.pivot(index="date", columns="asset")
    prices = wide["close"]
    found = np.full((2, len(prices), len(SAMPLE), len(JQ_HORIZONS)), np.nan)
    for k, name in enumerate(SAMPLE):
        factor = jq_exposures(wide[name], wide["mktcap"], wide["industry"])
        factor = factor.stack().rename("factor")
        returns = prepare.compute_forward_returns(factor, prices, JQ_HORIZONS)
        data = returns.join(factor, how="inner").dropna()
        for i, method in enumerate((stats.pearsonr, stats.spearmanr)):
            ic = performance.factor_information_coefficient(data, method=method)
            found[i, :, k] = ic.reindex(prices.index).to_numpy()
        # Of a constant cross-section it ranks what rounding left; there is none.
        found[:, (wide[name].nunique(axis=1) < 2).to_numpy(), k] = np.nan
    return found


def jq_unit_difference():
    """The largest difference of its exposures from those that the unit tests compare with."""
    import pandas as pd

    load = lambda name: np.load(os.path.join(UNIT_DATA, f"{name}.npy"))
    expected, cap = load("expected_preset_joinquant"), load("mktcap")
    industry = np.tile(load("industry"), (len(cap), 1))
    most, compared = 0.0, 0
    codes = [f"{a:06}.XSHE" for a in range(cap.shape[1])]
    frame = lambda values: pd.DataFrame(values).set_axis(codes, axis=1)
    for i, k in enumerate(UNIT_FACTORS):
        values = frame(load(f"f{k:02}"))
        found = jq_exposures(values, frame(cap), frame(industry)).to_numpy()
        # Where a cross-section is constant it divides rounding by rounding; rankwise has none.
        known = np.isfinite(expected[:, i])
        assert np.isfinite(found[known]).all(), f"f{k:02}: jqfactor-analyzer has fewer values"
        most = max(most, np.abs(found - expected[:, i])[known].max(initial=0))
        compared += known.sum()
    return most, compared


WORKERS = {"numpy": numpy_ic, "polars": polars_ic, "alphalens": alphalens_ic, "jqfactor": jq_ic}


def summary(table):
    """Mean, standard deviation, their ratio and t of each factor and horizon."""
    known = (~np.isnan(table)).sum(axis=0)
    mean, std = np.nanmean(table, axis=0), np.nanstd(table, axis=0, ddof=1)
    return np.stack([mean, std, mean / std, mean / std * np.sqrt(known)])


def work(name, path, output):
    """What runs in the process of a peer."""
    import polars  # noqa: F401  imports are not timed

    if name == "numpy":
        import scipy.stats  # noqa: F401
    if name == "alphalens":
        import alphalens  # noqa: F401
    if name == "jqfactor":
        jq_functions()
    start, cpu = time.perf_counter(), time.process_time()
    table = WORKERS[name](path)
    summary(table if name != "jqfactor" else table[1])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    np.save(output, table)
    print("\n" + json.dumps({"seconds": seconds, "cpu": cpu}))


def run(command):
    """Wall seconds, processor seconds, peak bytes and standard output of a process: of the median
    of three runs, or of one that takes long."""
    runs = [once(command)]
    if runs[0][0] < 20:
        runs += [once(command), once(command)]
    return sorted(runs, key=lambda run: run[0])[len(runs) // 2]


def once(command):
    """One run of it."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    text, complaint = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[:3]}: {complaint.decode()[-2000:]}")
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text


def ours(options, path, folder, ranks, shape, text=CONFIG):
    """One study: seconds, processor seconds, peak bytes, and Pearson and rank coefficients."""
    config, output = os.path.join(folder, "config.toml"), os.path.join(folder, f"out{ranks}")
    with open(config, "w") as file:
        file.write(text)
    command = [options.binary, "factor", path, "--config", config, "--output", output, "--json",
               "--threads", "1", *options.more.split()]
    if options.mpirun and ranks > 1:
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks)] + command
    else:
        command += ["--ranks", str(ranks)]
    seconds, cpu, peak, _ = run(command)
    table = np.full((2, *shape), np.nan)
    with open(os.path.join(output, "ic.csv")) as file:
        next(file)
        for i, line in enumerate(file):
            for kind, cell in zip(table, line.rstrip("\n").rsplit(",", 2)[1:]):
                if cell:
                    kind.flat[i] = float(cell)
    return seconds, cpu, peak, table[0], table[1]


def difference(a, b):
    """The largest difference, and in how many places just one table has a coefficient."""
    odd = int((np.isnan(a) != np.isnan(b)).sum())
    return np.nanmax(np.abs(a - b)), odd


def jqfactor(options, path, folder, shape, spent, table, line):
    """Its line, after one of ours with its preset; both must agree."""
    preset = ours(options, path, folder, 1, (*shape[:2], len(JQ_HORIZONS)), JQ_CONFIG)
    line("preset joinquant", *preset[:3], f"{0:9.1e}")
    scale = shape[1] / len(SAMPLE)
    pearson, rank = [difference(a, b[:, :len(SAMPLE)]) for a, b in zip(table, preset[3:])]
    line("jqfactor", spent[0] * scale, spent[1] * scale, spent[2],
         f"{rank[0]:9.1e}  against the preset; Pearson {pearson[0]:.1e}; {len(SAMPLE)} factors, "
         f"times scaled by {scale:.0f}, without FactorAnalyzer")
    most, compared = jq_unit_difference()
    print(f"  its exposures and those of the unit tests: {most:.1e} in {compared} places")
    assert max(most, pearson[0], rank[0]) <= 1e-12, "jqfactor disagrees"
    assert pearson[1] == rank[1] == 0, f"jqfactor has {pearson[1]} and {rank[1]} odd places"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", default="target/release/rankwise")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--codec", default="snappy", help="of the Parquet file: none, snappy, zstd")
    parser.add_argument("--peers", default=",".join(WORKERS))
    parser.add_argument("--mpirun", action="store_true", help="ranks as processes, not threads")
    parser.add_argument("--more", default="", help="more arguments for rankwise")
    parser.add_argument("--worker", nargs=3, metavar=("PEER", "PANEL", "TABLE"),
                        help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(*options.worker)
    assets, dates, factors = SIZES[options.size]
    shape = (dates, factors, len(HORIZONS))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "panel.parquet")
        spec = f"assets={assets},dates={dates},factors={factors},industries=30,seed=1"
        subprocess.run([options.binary, "factor", "generate", spec, "--output", path, "--codec",
                        options.codec], check=True, capture_output=True)
        print(f"{assets} assets x {dates} dates x {factors} factors, {options.codec} Parquet, "
              f"{os.path.getsize(path) / 1e6:.0f} MB; load {os.getloadavg()[0]:.1f} on "
              f"{os.cpu_count()} cores", flush=True)
        print(f"{'':18} {'seconds':>9} {'÷ ours':>7} {'CPU s':>8} {'÷ ours':>7} {'peak MB':>8} "
              f"{'÷ ours':>7} {'max |d|':>9}")
        base = ours(options, path, folder, 1, shape)

        def line(name, seconds, cpu, peak, note):
            ratios = [seconds / base[0], cpu / base[1], peak / base[2]]
            print(f"{name:18} {seconds:9.3f} {ratios[0]:7.1f} {cpu:8.2f} {ratios[1]:7.1f} "
                  f"{peak / 1e6:8.0f} {ratios[2]:7.2f} {note}", flush=True)

        line("rankwise, 1 rank", *base[:3], f"{0:9.1e}")
        two = ours(options, path, folder, 2, shape)
        assert np.array_equal(base[4], two[4], equal_nan=True), "two ranks have other bits"
        line("rankwise, 2 ranks", *two[:3], f"{0:9.1e}")
        for name in options.peers.split(","):
            output = os.path.join(folder, f"{name}.npy")
            _, _, peak, text = run([sys.executable, __file__, "--worker", name, path, output])
            spent, table = json.loads(text.splitlines()[-1]), np.load(output)
            seconds, cpu = spent["seconds"], spent["cpu"]
            if name == "alphalens":
                most, odd = difference(table, base[4][:, :len(SAMPLE)])
                scale = factors / len(SAMPLE)
                line(name, seconds * scale, cpu * scale, peak,
                     f"{most:9.1e}  {odd} odd; {len(SAMPLE)} factors, times scaled by {scale:.0f}")
                continue
            if name == "jqfactor":
                jqfactor(options, path, folder, shape, (seconds, cpu, peak), table, line)
                continue
            most, odd = difference(table, base[4])
            line(name, seconds, cpu, peak, f"{most:9.1e}")
            assert most <= 1e-12 and odd == 0, f"{name} disagrees: {most}, {odd} places"


if __name__ == "__main__":
    main()

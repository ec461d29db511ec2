#!/usr/bin/env python3
"""Writes what four tools make of the small panel, for src/factor/preset_tests.rs.

Usage: factor_presets.py tests/data/factor
Needs numpy and scipy. Every tool's formulas are written out from its source, one date at a time:
jqfactor-analyzer 1.1 (winsorize_med, neutralize, standardlize), alphalens-reloaded 0.5.1, qlib
(robust_zscore, calc_ic, calc_long_short_return), and Barra exposures (CNE5, USE4). Regressions are
solved by least squares on the whole design, not by demeaning.

expected_preset_NAME.npy holds dates x factors x assets of processed values; the two tables hold
coefficients (Pearson, rank) and mean returns of groups, date by date.
"""
import sys

import numpy as np
from scipy import stats

folder = sys.argv[1]
load = lambda name: np.load(f"{folder}/{name}.npy")
close, cap, industry = load("close"), load("mktcap"), load("industry")
FACTORS = (0, 1, 3, 4, 5)
dates, assets = close.shape
dummies = np.eye(int(industry.max()) + 1)[industry]


def neutralise(y, size, weight, known):
    """Residuals on industries and size without a constant; size is scaled for its condition."""
    x = np.column_stack([dummies[known], size / np.abs(size).max()])
    x = x[:, np.abs(x).sum(axis=0) > 0]
    root = np.sqrt(weight)[:, None]
    beta = np.linalg.lstsq(x * root, y * root[:, 0], rcond=None)[0]
    return y - x @ beta


def constant(values, before):
    """A deviation that is rounding: the tools divide by it, and get noise or nothing."""
    return len(values) < 3 or values.std(ddof=1) <= 1e-12 * np.abs(before).max()


def joinquant(x, t):
    known = np.isfinite(x) & np.isfinite(cap[t])
    out = np.full(assets, np.nan)
    y = x[known]
    if len(y) < 3:
        return out
    median = np.median(y)
    mad = np.median(np.abs(y - median))
    y = np.clip(y, median - mad, median + mad)
    e = neutralise(y, cap[t][known], np.ones(len(y)), known)
    if not constant(e, y):
        out[known] = (e - e.mean()) / e.std(ddof=0)
    return out


def alphalens(x, t):
    out = np.where(np.isfinite(x), x, np.nan)
    y = out[np.isfinite(out)]
    return out if len(y) >= 3 and not constant(y, y) else np.full(assets, np.nan)


def qlib(x, t):
    out = np.full(assets, np.nan)
    known = np.isfinite(x)
    y = x[known]
    if len(y) < 3:
        return out
    mad = np.median(np.abs(y - np.median(y)))
    if mad > 0:
        z = np.clip((y - np.median(y)) / mad / 1.4826, -3, 3)
    else:
        z = y  # qlib divides by 0 here
    if not constant(z, z):
        out[known] = (z - z.mean()) / z.std(ddof=1)
    return out


def barra(x, t):
    known = np.isfinite(x) & np.isfinite(cap[t])
    out = np.full(assets, np.nan)
    y, c = x[known], cap[t][known]
    if len(y) < 3:
        return out
    mean, deviation = y.mean(), y.std(ddof=1)
    y = np.clip(y, mean - 3 * deviation, mean + 3 * deviation)
    e = neutralise(y, np.log(c), np.sqrt(c), known)
    if not constant(e, y):
        out[known] = (e - (c @ e) / c.sum()) / e.std(ddof=1)
    return out


def forward(price, horizon, delay=0):
    out = np.full_like(price, np.nan)
    last = dates - horizon - delay
    out[:last] = price[horizon + delay:] / price[delay:dates - horizon] - 1
    return out


def filled(price):
    out = price.copy()
    for t in range(1, dates):
        out[t] = np.where(np.isfinite(out[t]), out[t], out[t - 1])
    return out


def all_known(returns):
    hole = ~np.isfinite(np.array(returns)).all(axis=0)
    return [np.where(hole, np.nan, r) for r in returns]


def qcut(x, count):
    """pandas.qcut with labels from 0; nothing where edges coincide."""
    edges = np.quantile(x, np.linspace(0, 1, count + 1))
    if (np.diff(edges) <= 0).any():
        return np.full(len(x), -1)
    return np.maximum(np.searchsorted(edges, x, side="left") - 1, 0)


def groups_of(name, x):
    if name != "qlib":
        return qcut(x, 5)
    # nlargest and nsmallest of int(n / 5), ties in the order of assets
    n, found = int(len(x) * 0.2), np.full(len(x), -1)
    found[np.argsort(x, kind="stable")[:n]] = 0
    found[np.argsort(-x, kind="stable")[:n]] = 4
    return found


RETURNS = {
    "joinquant": all_known([forward(close, h) for h in (1, 5, 10)]),
    "alphalens": all_known([forward(filled(close), h) for h in (1, 5, 10)]),
    "qlib": [forward(close, 1, delay=1)],
    "barra": [forward(close, h) for h in (1, 5, 20)],
}
ic = open(f"{folder}/expected_preset_ic.csv", "w")
means = open(f"{folder}/expected_preset_groups.csv", "w")
cell = lambda x: "" if not np.isfinite(x) else repr(float(x))
print("preset,date,factor,number,ic,rank_ic", file=ic)
print("preset,date,factor,number,low,high", file=means)
for tool in (joinquant, alphalens, qlib, barra):
    name = tool.__name__
    done = [[tool(load(f"f{k:02d}")[t], t) for k in FACTORS] for t in range(dates)]
    done = np.array(done)
    if name != "alphalens":  # it leaves values as they are
        np.save(f"{folder}/expected_preset_{name}.npy", done)
    for t in range(dates):
        for i, k in enumerate(FACTORS):
            for h, returns in enumerate(RETURNS[name]):
                x, r = done[t, i], returns[t]
                both = np.isfinite(x) & np.isfinite(r)
                x, r = x[both], r[both]
                flat = len(x) < 3 or constant(x, x) or constant(r, r)
                pearson, rank = (np.nan, np.nan) if flat else (
                    stats.pearsonr(x, r)[0], stats.spearmanr(x, r)[0])
                print(f"{name},{t},{k},{h},{cell(pearson)},{cell(rank)}", file=ic)
                if name == "barra" or len(x) < 5:
                    continue
                group = groups_of(name, x)
                r = r if name == "qlib" else r - r[group >= 0].mean() if (group >= 0).any() else r
                low, high = [r[group == g].mean() if (group == g).any() else np.nan for g in (0, 4)]
                print(f"{name},{t},{k},{h},{cell(low)},{cell(high)}", file=means)

#!/usr/bin/env python3
"""Writes the expected regressions of Fama and MacBeth for src/factor/fama_macbeth_tests.rs.

Usage: factor_oracle.py tests/data/factor > tests/data/factor/expected_fama_macbeth.csv
Needs numpy and statsmodels. Every date: OLS with a constant over complete assets; a date with
fewer than 10 of them or with a constant factor is skipped. Newey-West: Bartlett, horizon - 1 lags,
no small-sample correction, normal p.
"""
import sys

import numpy as np
import statsmodels
import statsmodels.api as sm

FACTORS = ["f01", "f02", "f03", "f06"]
folder = sys.argv[1]
close = np.load(f"{folder}/close.npy")
columns = [np.load(f"{folder}/{name}.npy") for name in FACTORS]
dates = len(close)
print("horizon,factor,dates,few_assets,collinear,mean_assets,mean_r2,mean,std,t,p,t_nw,p_nw")
for horizon in (1, 5):
    rows, r2, assets, few, collinear = [], [], [], 0, 0
    for t in range(dates):
        ahead = close[t + horizon] if t + horizon < dates else np.full_like(close[t], np.nan)
        y = ahead / close[t] - 1
        x = np.column_stack([column[t] for column in columns])
        complete = np.isfinite(y) & np.isfinite(x).all(axis=1)
        if complete.sum() < 10:
            few += 1
            continue
        x = x[complete]
        if (x.std(axis=0) == 0).any():
            collinear += 1
            continue
        fit = sm.OLS(y[complete], sm.add_constant(x)).fit()
        rows.append(fit.params)
        r2.append(fit.rsquared)
        assets.append(complete.sum())
    for k, name in enumerate(["constant"] + FACTORS):
        b = np.array(rows)[:, k]
        plain = sm.OLS(b, np.ones(len(b))).fit()
        lags = {"maxlags": horizon - 1, "use_correction": False}
        hac = plain.get_robustcov_results("HAC", use_t=False, **lags)
        cells = [np.mean(assets), np.mean(r2), b.mean(), b.std(ddof=1), plain.tvalues[0],
                 plain.pvalues[0], hac.tvalues[0], hac.pvalues[0]]
        numbers = ",".join(repr(float(cell)) for cell in cells)
        print(f"{horizon},{name},{len(b)},{few},{collinear},{numbers}")
print(f"numpy {np.__version__}, statsmodels {statsmodels.__version__}", file=sys.stderr)

#!/usr/bin/env python3
"""A real panel for `rankwise factor`: the prices that come with the skfolio package, as a long table.

20 large US stocks, 8,313 days from 1990 to 2022, adjusted closes, with the S&P 500 as benchmark.
The prices are read from the installed package; nothing is downloaded here. Rows are sorted by date,
so a Parquet table can also be read by blocks of dates (`--block-dates`). Then

    python3 -m venv bench/peers/.venv
    bench/peers/.venv/bin/pip install skfolio polars
    bench/peers/.venv/bin/python bench/peers/skfolio_panel.py us_stocks.parquet
    rankwise --ranks 2 factor us_stocks.parquet --config examples/us_stocks.toml --output us_stocks
"""
import argparse

import polars as pl
from skfolio.datasets import load_sp500_dataset, load_sp500_index


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("output", help="a .parquet or .csv file")
    options = parser.parse_args()
    prices, index = load_sp500_dataset(), load_sp500_index()
    benchmark = index.iloc[:, 0].reindex(prices.index).to_numpy()
    dates = list(prices.index.date)
    parts = [pl.DataFrame({"date": dates, "asset": [name] * len(prices),
                           "close": prices[name].to_numpy(), "benchmark": benchmark})
             for name in prices.columns]
    table = pl.concat(parts).sort("date", "asset").fill_nan(None)
    if options.output.endswith(".csv"):
        table.write_csv(options.output)
    else:
        table.write_parquet(options.output, row_group_size=250 * prices.shape[1])
    print(f"{options.output}: {len(table)} rows, {prices.shape[1]} stocks, {dates[0]} to {dates[-1]}")


if __name__ == "__main__":
    main()

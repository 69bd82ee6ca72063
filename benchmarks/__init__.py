"""How good is good, measured: `./dev bench`. See docs/benchmarks.md."""

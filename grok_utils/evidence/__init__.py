"""All studies together: records come in, the fourteen verdicts, what lies behind them, and their words go out.

Read `members`, `rules`, `claims` and `effects`, then `answer`, `words`, `figures` and `index`.
"""

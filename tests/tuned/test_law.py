"""The law of time, rate and decay against lifelines, scipy's optimisers, and simulations whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from grok_utils.tuned import fitting, law

RATES, DECAYS = (1e-3, 2e-3, 4e-3), (0.25, 0.5, 1.0)


def grid(time, seeds=6, horizon=7500, rates=RATES, decays=DECAYS, arm="constant-64"):
    """`crossings` of a grid whose member needs `time(rate, decay, seed)` updates, logged every 10."""
    rows = []
    for rate in rates:
        for decay in decays:
            for seed in range(seeds):
                t = 10 * np.ceil(time(rate, decay, seed) / 10)
                row = {"schedule": arm, "cell": f"learning_rate={rate} weight_decay={decay}", "operation": "x_plus_y"}
                row |= {"seed": seed, "reached": t <= horizon, "updates": t if t <= horizon else np.nan}
                row |= {"diverged": False, "examples_seen": np.nan}
                rows.append(row | {"restricted": min(t, horizon), "horizon": horizon})
    return pd.DataFrame(rows)


def drawn(rng, sd=0.3, product=-0.9, quotient=0.1, luck=None):
    """Times of a log-normal law on rate × decay and rate / decay; `luck` is a seed's own, in logs."""

    def time(rate, decay, seed):
        shared = luck[seed] if luck is not None else 0
        mean = 0.5 + product * np.log(rate * decay) + quotient * np.log(rate / decay) + shared
        return 25 + np.exp(mean + sd * rng.standard_normal())

    return time


# --- which cells count, and the edge ---------------------------------------------------------------------------------


def test_a_cell_counts_by_its_own_median_and_its_two_neighbours():
    never = {(4e-3, 1.0), (1e-3, 1.0)}  # and no cell is beyond 4e-3 or beyond 1
    members = grid(lambda r, d, s: 9999 if (r, d) in never and s == 0 else 4000 if (r, d) == (1e-3, 0.25) else 1000)
    cells = law.surface(members).set_index(["rate", "decay"])
    assert cells.index[cells["counts"]].tolist() == [(2e-3, 0.25), (2e-3, 0.5)]
    assert len(cells) == 9  # of the others 1e-3, 0.25 is too late and 1e-3, 0.5 has a neighbour that fails
    assert cells.index[~cells["all_reach"]].tolist() == [(1e-3, 1.0), (4e-3, 1.0)]
    assert cells.loc[(2e-3, 0.25), ["tau", "median", "in_tau"]].tolist() == pytest.approx([2000, 1000, 0.5])


def test_a_cell_of_which_half_never_reach_has_no_median():
    cells = law.surface(grid(lambda r, d, s: 1000 if s < 3 else 9999)).set_index(["rate", "decay"])
    assert cells["median"].isna().all() and cells["reached"].eq(3).all() and not cells["counts"].any()


def test_the_edge_is_the_highest_cell_at_which_all_seeds_reach_and_keep():
    def touch(rate, decay, seed):
        return 9999 if rate * decay > 2e-3 and seed == 5 else 500

    def keep(rate, decay, seed):
        return 9999 if decay == 1 or (rate, seed) == (4e-3, 0) else 500

    found = law.edges(law.surface(grid(touch)), law.surface(grid(keep))).set_index(["of", "at"])
    assert found.loc["rate"].loc[list(DECAYS), "reach"].tolist() == [4e-3, 4e-3, 2e-3]
    assert found.loc["rate"].loc[list(DECAYS), "keep"].tolist() == pytest.approx([2e-3, 2e-3, np.nan], nan_ok=True)
    assert found.loc["decay"].loc[list(RATES), "reach"].tolist() == [1, 1, 0.5]
    assert found.loc["decay"].loc[list(RATES), "keep"].tolist() == pytest.approx([0.5, 0.5, np.nan], nan_ok=True)
    assert found.loc["rate", "tried"].eq(4e-3).all() and found.loc["decay", "tried"].eq(1).all()


# --- the likelihood ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated():
    """54 members of nine cells, 13 of them censored at 900 updates."""
    members = grid(drawn(np.random.default_rng(0)), horizon=900)
    return law.times(members, law.surface(members))


def test_survival_regression_is_that_of_lifelines(simulated):
    """LogNormalAFTFitter().fit_interval_censoring of lifelines 0.30.3, on these rows less 25 updates."""
    assert np.isinf(simulated.until).sum() == 13
    (theta,), (value,) = law.fit(law.product_law(simulated), np.ones((1, 54)))
    assert theta == pytest.approx([1.897933, -0.812544, 0.241079, -1.430517], abs=2e-4)
    assert -value == pytest.approx(-150.739122, abs=1e-5)


def by_definition(t, mean, cost):
    """Minus the log likelihood of the parameters, a member at a time."""

    def value(theta):
        law_of = stats.norm(0, np.exp(theta[-1]))
        total = 0.0
        for above, until, rate, decay in zip(t.above - cost, t.until - cost, t.rate, t.decay, strict=True):
            mu = mean(theta, rate, decay)
            if np.isinf(until):
                total -= law_of.logsf(np.log(above) - mu)
            else:
                total -= np.log(law_of.cdf(np.log(until) - mu) - law_of.cdf(np.log(above) - mu))
        return total

    return value


def product_mean(theta, rate, decay):
    return theta[0] + theta[1] * np.log(rate * decay) + theta[2] * np.log(rate / decay)


def timescale_mean(theta, rate, decay):
    return np.log(np.exp(theta[0]) + np.exp(theta[1]) * (rate * decay) ** -theta[2])


@pytest.mark.parametrize(
    ("of", "mean", "cost"), [(law.product_law, product_mean, 25), (law.timescale_law, timescale_mean, 0)]
)
def test_likelihood_and_its_derivatives_are_those_of_the_definition(simulated, of, mean, cost):
    low, high, means, starts = of(simulated)
    objective, theta = law.log_normal(means, low, high, np.ones((1, 54))), starts[-1]
    value, gradient, curvature = objective(theta[None], np.array([0]))
    oracle = by_definition(simulated, mean, cost)
    assert value[0] == pytest.approx(oracle(theta))
    assert gradient[0] == pytest.approx(optimize.approx_fprime(theta, oracle, 1e-7), rel=1e-4, abs=1e-3)
    if of is law.product_law:  # the other's mean is curved, and its curvature left out

        def slopes(at):
            return objective(np.array(at)[None], np.array([0]))[1][0]

        steps = 1e-6 * np.eye(4)
        numerical = np.array([(slopes(theta + h) - slopes(theta - h)) / 2e-6 for h in steps])
        assert curvature[0] == pytest.approx(numerical, rel=1e-5, abs=1e-3)


def test_timescale_fit_is_the_optimum_that_scipy_finds():
    rng = np.random.default_rng(4)
    members = grid(lambda r, d, s: (150 + 0.4 * (r * d) ** -0.95) * np.exp(0.1 * rng.standard_normal()))
    t = law.times(members, law.surface(members))
    timescale = law.timescale_law(t)
    (theta,), (value,) = law.fit(timescale, np.ones((1, 54)))
    oracle = optimize.minimize(
        by_definition(t, timescale_mean, 0),
        timescale.starts[1],
        method="Nelder-Mead",
        options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-7, "fatol": 1e-9},
    )
    assert value == pytest.approx(oracle.fun, abs=1e-5)
    assert theta == pytest.approx(oracle.x, abs=2e-3)


def test_without_regressors_it_is_scipys_censored_fit(simulated):
    """Of equal cells the mean is the intercept: scipy.stats.lognorm fits the same intervals."""
    data = stats.CensoredData(interval=np.c_[simulated.above, simulated.until])
    shape, _, scale = stats.lognorm.fit(data, floc=0)
    objective = law.log_normal(
        lambda theta: (np.repeat(theta, 54, axis=1), np.ones((1, 54, 1))),
        np.log(simulated.above),
        np.log(simulated.until),
        np.ones((1, 54)),
    )
    assert np.exp(fitting.minimise(objective, np.array([[6.0, -1.0]]))[0]) == pytest.approx([scale, shape], rel=1e-3)


def test_a_time_within_the_warm_up_is_refused(simulated):
    t = simulated.copy()
    t["above"], t["until"] = 10, 20
    with pytest.raises(ValueError, match="after 20 updates"):
        law.product_law(t)


# --- both laws, with intervals ----------------------------------------------------------------------------------------


def edged(rates, decays):
    """Grid values with one more of each, whose neighbours make the others count."""
    return {"rates": (*rates, 2 * rates[-1]), "decays": (*decays, 2 * decays[-1])}


def test_the_bootstrap_is_a_refit_of_each_resample():
    """Against members repeated as often as their seed was drawn, fitted one resample at a time."""
    luck = np.random.default_rng(1).normal(0, 0.2, 6)
    members = grid(drawn(np.random.default_rng(2), luck=luck), **edged(RATES, DECAYS))
    found = law.laws(members, resamples=40).set_index(["law", "coefficient"])
    cells = law.surface(members).query("counts")
    draws = {name: [] for name in law.LAWS}
    for weights in fitting.seed_weights(np.ones((6, 1)), 40)[1:].astype(int):
        rows = pd.concat([members[members["seed"] == s] for s in np.repeat(np.arange(6), weights)])
        t = law.times(rows, cells)
        for name, (of, _, logs) in law.LAWS.items():
            (best,), _ = law.fit(of(t), np.ones((1, len(t.seed))))
            draws[name].append(np.where(logs, np.exp(best), best))
    for name, (_, coefficients, _) in law.LAWS.items():
        for coefficient, column in zip(coefficients, np.transpose(draws[name]), strict=True):
            row = found.loc[(name, coefficient)]
            assert [row["low"], row["high"]] == pytest.approx(
                fitting.percentile_interval(column, 6), rel=2e-3, abs=2e-3
            ), (name, coefficient)


def test_intervals_of_the_exponents_cover_the_truth_about_as_often_as_they_say():
    covered, weights = [], fitting.seed_weights(np.ones((8, 1)), 400)[1:]
    for run in range(60):
        rng = np.random.default_rng([7, run])
        members = grid(drawn(rng, sd=0.15, luck=rng.normal(0, 0.2, 8)), 8, 10**6)
        t = law.times(members, law.surface(members))
        draws, _ = law.fit(law.product_law(t), weights[:, t.seed])
        for column, truth in ((1, -0.9), (2, 0.1)):
            ends = [fitting.percentile_interval(draws[:, column], 8, level) for level in (0.95, 0.90)]
            covered.append([low <= truth <= high for low, high in ends])
    wide, narrow = np.mean(covered, axis=0)
    assert 0.88 <= wide <= 0.99 and 0.82 <= narrow <= 0.96 and narrow < wide


def test_aic_leads_to_the_law_that_made_the_times():
    def by_timescale(rng):
        return lambda r, d, s: (300 + 0.3 * (r * d) ** -1.0) * np.exp(0.05 * rng.standard_normal())

    for of, leads in ((by_timescale, "timescale"), (lambda rng: drawn(rng, 0.05, quotient=0.2), "product")):
        members = grid(of(np.random.default_rng(3)), 8, 10**6, **edged(RATES, DECAYS))
        aic = law.laws(members, resamples=2).groupby("law")["aic"].first()
        assert aic.idxmin() == leads and abs(aic.diff().iloc[-1]) > 10


def test_cells_that_cannot_tell_a_law_give_it_no_rows():
    members = grid(drawn(np.random.default_rng(0)), **edged((1e-3, 2e-3), (0.25,)))
    assert law.surface(members)["counts"].sum() == 2 and law.laws(members, 10).empty
    corner = grid(drawn(np.random.default_rng(0)), **edged((1e-3, 2e-3), (0.5, 1.0)))
    missing = corner["cell"].eq("learning_rate=0.004 weight_decay=1.0")
    three = law.laws(corner[~missing], 10)
    assert set(three["law"]) == {"product"} and three["cells"].eq(3).all()

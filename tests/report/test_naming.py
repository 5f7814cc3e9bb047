"""Names of configurations: true, unique, and the same where the same was varied."""

from __future__ import annotations

import json
from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from chela.report.naming import LONGEST, Variant, describe, differing, labels


def variant(
    column: str,
    identity: str,
    data: str = "d" * 64,
    departures: Collection[str] | None = None,
    **choices: object,
) -> Variant:
    keys = {f"model.{key}": value for key, value in choices.items()}
    return Variant(column, identity, data, keys, departures)


def test_one_configuration_has_no_label() -> None:
    assert labels([variant("listops", "a", depth=6), variant("text", "b", depth=4)]) == ["", ""]


def test_a_sweep_over_tasks_lines_up() -> None:
    variants = [
        variant(column, f"{column}{kernel}", kernel=kernel, depth=depth)
        for column, depth in (("listops", 6), ("text", 4))
        for kernel in ("multiscale", "ema")
    ]
    assert labels(variants) == ["kernel=multiscale", "kernel=ema"] * 2


def test_a_run_alone_joins_the_row_it_fits() -> None:
    variants = [
        variant("listops", "a", kernel="ema", depth=6),
        variant("listops", "b", kernel="explicit", depth=6),
        variant("text", "c", kernel="ema", depth=4),
        variant("image", "d", kernel="multiscale", depth=8),
    ]
    assert labels(variants) == ["kernel=ema", "kernel=explicit", "kernel=ema", ""]


def test_a_run_alone_that_fits_two_rows_joins_neither() -> None:
    variants = [
        variant("listops", "a", kernel="ema", depth=6),
        variant("listops", "b", kernel="x", depth=6),
        variant("text", "c", kernel="ema", depth=6),
        variant("text", "d", kernel="ema", depth=4),
        variant("image", "e", kernel="ema", depth=6),
    ]
    assert labels(variants)[-1] == ""


def test_the_rows_of_an_ablation_say_what_is_left_out() -> None:
    parts = {"use_long_conv": True, "use_attention": True, "gate": "silu", "branch_widths": [5]}
    left_out = [{}, {"use_long_conv": False}, {"use_attention": False}, {"branch_widths": []}]
    variants = [
        variant("text", str(number), **{**parts, **change})
        for number, change in enumerate(left_out)
    ]
    assert labels(variants) == [
        "",
        "use_long_conv=false",
        "use_attention=false",
        "branch_widths=[]",
    ]
    elsewhere = variant("listops", "9", **{**parts, "use_attention": False})
    assert labels([*variants, elsewhere])[-1] == "use_attention=false"


def test_the_row_without_a_label_is_the_shipped_recipe() -> None:
    """Also where most runs of the column are of something else, here of fewer epochs."""
    recipe = {
        "trainer.max_epochs": 8.0,
        "model.mixer.use_attention": True,
        "model.mixer.use_short_conv": True,
        "model.mixer.gate": "silu",
    }
    short = {"trainer.max_epochs": 5.0}
    changes = {
        "": {},
        "max_epochs=5.0": short,
        "use_attention=false": {"model.mixer.use_attention": False},
        "max_epochs=5.0, use_short_conv=false": {**short, "model.mixer.use_short_conv": False},
        "max_epochs=5.0, gate=none": {**short, "model.mixer.gate": "none"},
    }
    drawn = [
        Variant("text", str(n), "d" * 64, {**recipe, **change}, change)
        for n, change in enumerate(changes.values())
    ]
    assert [set(label.split(", ")) for label in labels(drawn)] == [
        set(label.split(", ")) for label in changes
    ]


def test_the_recipe_beside_a_sweep_has_no_label() -> None:
    """Recipes are one row, also where one of them is a cell of a sweep as well."""
    unlike = {"model.dim"}
    variants = [
        variant("listops", "a", dim=40, departures=unlike),
        variant("listops", "b", dim=80, departures=()),
        variant("listops", "c", dim=160, departures=unlike),
        variant("text", "d", dim=128, departures=("task.protocol",)),
        variant("text", "e", dim=64, departures=unlike),
    ]
    assert labels(variants) == ["dim=40", "", "dim=160", "", "dim=64"]


def test_of_a_recipe_by_two_protocols_the_shipped_one_has_no_label() -> None:
    variants = [
        variant("text", "a", protocol="lra", dim=80, departures=("task.protocol",)),
        variant("text", "b", protocol="heldout", dim=80, departures=()),
    ]
    assert labels(variants) == ["protocol=lra", ""]


def test_what_is_no_recipe_is_never_in_the_row_of_recipes() -> None:
    """Nor is what a record without departures holds, which may be anything."""
    words = {f"quite_a_long_key_of_a_model_{n}": 0 for n in range(3)}
    changed = {**words, "quite_a_long_key_of_a_model_0": 1}
    far = dict.fromkeys(words, 9)
    column = [
        variant("text", "a", departures=(), **words),
        variant("text", "b", **changed),
        variant("text", "c", **changed, more=1),
        variant("text", "d", **far),
    ]
    alone = [
        variant("image", "e", **words),
        variant("listops", "f", departures={"model.depth"}, **words, depth=3),
        variant("pathfinder", "g", departures={f"model.{key}" for key in words}, **words),
    ]
    one = "quite_a_long_key_of_a_model_0=1"
    assert labels(column + alone) == ["", "b", "c", "d", "e", "depth=3", "g"]
    assert labels([*column[:2], *column[3:], *alone])[:3] == ["", one, "d"]
    # with no recipe there is none to be taken for
    assert labels(alone) == ["", "", ""]
    same = [each for each in column if each.identity in "cd"]
    assert "" not in labels([*same, variant("image", "r", departures=())])[:2]


def test_too_long_a_difference_is_a_hash() -> None:
    variants = [variant("listops", name, text=letter * LONGEST) for name, letter in ("ax", "by")]
    assert labels(variants) == ["a", "b"]


def test_a_key_that_only_newer_runs_have_is_no_difference() -> None:
    old, new = variant("listops", "a", depth=6), variant("listops", "b", depth=6, new=1)
    assert differing([old, new]) == []
    assert labels([old, new]) == ["a", "b"]


def test_the_same_configuration_on_other_data_says_so() -> None:
    variants = [variant("listops", "a", data * 64, depth=6) for data in "xy"]
    assert labels(variants) == ["a, data xxxxxxxx", "a, data yyyyyyyy"]


def test_equal_ends_of_keys_are_written_out() -> None:
    one = Variant("c", "a", "", {"optimizer.name": "adam", "schedule.name": "cosine", "x.lr": 0.1})
    keys = ["optimizer.name", "schedule.name", "x.lr"]
    assert describe(one.choices, keys) == "optimizer.name=adam, schedule.name=cosine, lr=0.1"


CHOICES = st.fixed_dictionaries(
    {"model.a": st.integers(0, 2), "model.b": st.sampled_from(["x", "y", None])},
    optional={"model.c": st.booleans()},
)


DEPARTURES = st.sampled_from([None, (), ("model.a",), ("model.b",), ("model.a", "model.b")])


@given(st.lists(st.tuples(st.sampled_from("pqr"), CHOICES, DEPARTURES), min_size=1, max_size=9))
def test_no_two_variants_of_a_column_share_a_label(drawn) -> None:
    """Else their runs would be averaged. What a label states is so, and where there are recipes
    only these have none.
    """
    variants = [Variant(c, f"id{n}", "d" * 64, *rest) for n, (c, *rest) in enumerate(drawn)]
    found = labels(variants)
    if any(each.is_recipe for each in variants):
        assert all(each.is_recipe for each, label in zip(variants, found, strict=True) if not label)
    places = [(each.column, label) for each, label in zip(variants, found, strict=True)]
    assert len(set(places)) == len(places)
    for each, label in zip(variants, found, strict=True):
        for part in filter(lambda part: "=" in part, label.split(", ")):
            key, _, value = part.partition("=")
            stated = each.choices[f"model.{key}"]
            assert value == (stated if isinstance(stated, str) else json.dumps(stated))

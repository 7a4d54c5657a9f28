"""Loading: extends, KEY=VALUE, origins, and the way back to YAML."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftkit.core.errors import UserError
from ftkit.recipe import Recipe, builtin_recipes, dump_yaml, flatten, load_recipe
from ftkit.recipe.rules import Said, faults_between_sections

in_one_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def faults(*arguments):
    with pytest.raises(UserError) as caught:
        load_recipe(*arguments)
    return [str(fault) for fault in caught.value.faults]


def test_a_recipe_is_loaded_with_its_defaults(write, valid):
    recipe = load_recipe(write(valid)).recipe
    assert recipe.train.lr == 1e-4
    assert recipe.method.name == "sft"
    assert recipe.method.form == "nll"
    assert recipe.eval.every is None
    assert recipe.log == ["jsonl"]


def test_where_each_value_came_from(write, valid):
    loaded = load_recipe(write(valid), ["train.epochs=2", "data.train=other.jsonl"])
    assert loaded.origin("train.lr") == "r.yaml:9:7"
    assert loaded.origin("train") == "r.yaml:8:1"
    assert loaded.origin("train.epochs") == "command line"
    assert loaded.origin("data.train") == "command line"
    assert loaded.origin("seed") == "default"
    assert loaded.recipe.data.train == "other.jsonl"


def test_a_place_in_a_file_that_is_extended_names_that_file(write, valid):
    write(valid, "base/b.yaml")
    loaded = load_recipe(write("extends: ../base/b.yaml\nrun: runs/b\n", "child/c.yaml"))
    assert loaded.origin("train.lr") == "base/b.yaml:9:7"
    assert loaded.origin("run") == "child/c.yaml:2:6"


# extends


def test_maps_merge_lists_and_scalars_replace(write, valid):
    write(valid + "  betas: [0.5, 0.6]\nlog: [jsonl, tensorboard]\n", "b.yaml")
    child = "extends: b.yaml\ntrain: {betas: [0.7, 0.8], epochs: 3}\nlog: [jsonl]\n"
    recipe = load_recipe(write(child)).recipe
    assert recipe.train.betas == (0.7, 0.8)
    assert (recipe.train.lr, recipe.train.epochs) == (1e-4, 3)
    assert recipe.log == ["jsonl"]


def test_null_takes_away_what_has_no_null_and_is_a_value_where_it_is_one(write, valid):
    write(valid + "  betas: [0.5, 0.6]\n  max_grad_norm: 2\n", "b.yaml")
    child = "extends: b.yaml\ntrain: {optimizer: sgd, betas: null, max_grad_norm: null}\n"
    loaded = load_recipe(write(child))
    assert loaded.recipe.train.max_grad_norm is None
    assert loaded.origin("train.betas") == "default"


def test_null_that_takes_nothing_away_is_no_value(write, valid):
    assert faults(write(valid + "  warmup:\n")) == [
        "r.yaml:10:10 train.warmup: null, which is no value; write a number of at least 0"
    ]


def test_a_method_of_another_name_brings_none_of_the_constants(write, valid):
    base = valid.replace("{name: sft}", "{name: sft, loss: dynamic}")
    write(base.replace("  eval: held-out.jsonl\n", ""), "b.yaml")
    same = load_recipe(write("extends: b.yaml\nmethod: {average: answer}\n")).recipe
    assert (same.method.form, same.method.average) == ("dynamic", "answer")
    other = load_recipe(write("extends: b.yaml\nmethod: {name: pretrain}\n")).recipe
    assert other.method.name == "pretrain"


def test_extends_of_extends(write, valid):
    write(valid, "a.yaml")
    write("extends: a.yaml\ntrain: {lr: 2.0}\nseed: 5\n", "b.yaml")
    recipe = load_recipe(write("extends: b.yaml\nseed: 6\n")).recipe
    assert (recipe.train.lr, recipe.seed, recipe.run) == (2.0, 6, "runs/a")


def test_a_cycle_is_shown_whole(write):
    write("extends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    write("extends: a.yaml\n", "c.yaml")
    assert faults("a.yaml") == [
        "c.yaml:1:10 extends: a cycle: a.yaml -> b.yaml -> c.yaml -> a.yaml; "
        "let one of them extend nothing"
    ]


def test_extends_names_a_built_in_recipe(write):
    name = next(iter(builtin_recipes()))
    base = load_recipe(name).recipe
    child = load_recipe(write(f"extends: {name}\nrun: runs/mine\n")).recipe
    assert child == base.model_copy(update={"run": "runs/mine"})


def test_built_in_recipes_can_be_copied_anywhere(folder):
    for name, path in builtin_recipes().items():
        copy = folder / "copy.yaml"
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        assert load_recipe("copy.yaml").recipe == load_recipe(name).recipe


def test_extends_of_nothing_and_of_no_text(write, valid):
    write(valid, "base.yaml")
    assert faults(write("extends: bse.yaml\n")) == [
        "r.yaml:1:10 extends: no file and no built-in recipe 'bse.yaml'; did you mean 'base.yaml'?"
    ]
    assert faults(write("extends: [base.yaml]\n" + valid))[0].startswith(
        "r.yaml:1:10 extends: no text; write a file"
    )


# the file


def test_a_missing_file_lists_what_looks_like_it(write, valid):
    write(valid, "sft-big.yaml")
    assert faults("sft-bg.yaml") == [
        "sft-bg.yaml: no file and no built-in recipe 'sft-bg.yaml'; did you mean 'sft-big.yaml'?"
    ]
    assert "`ftkit recipes list`" in faults("zzzz")[0]


def test_a_run_folder_is_no_recipe_but_holds_one(write, valid):
    write(valid, "runs/a/recipe.yaml")
    assert faults("runs/a") == [
        "runs/a: 'runs/a' is a folder, not a recipe; write runs/a/recipe.yaml"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r.yaml:1:1: empty; write keys and values, as in 'run: runs/a'"),
        (b"# only a comment\n", "r.yaml:1:1: empty;"),
        (b"- a\n", "r.yaml:1:1: not a map at the top;"),
        (b"run: \xff\n", "r.yaml: not UTF-8, at byte 5; save it so"),
    ],
)
def test_a_file_that_is_no_recipe(folder, content, message):
    (folder / "r.yaml").write_bytes(content)
    (fault,) = faults("r.yaml")
    assert fault.startswith(message)


def test_a_byte_order_mark_is_not_part_of_a_key(folder, valid):
    (folder / "r.yaml").write_bytes(b"\xef\xbb\xbf" + valid.encode())
    assert load_recipe("r.yaml").recipe.run == "runs/a"


# overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.lr=1e-3", "train.lr", 1e-3),
        ("run=yes", "run", "yes"),
        ("method.loss=dynamic", "method.loss", "dynamic"),
        ("model.lora={r: 4}", "model.lora.r", 4),
        ("model.lora.alpha=3", "model.lora.alpha", 3.0),
        ("train.betas=[0.1, 0.2]", "train.betas", [0.1, 0.2]),
        ("model.revision='123'", "model.revision", "123"),
        ("data.train=a=b.jsonl", "data.train", "a=b.jsonl"),
        ("train.max_grad_norm=", "train.max_grad_norm", None),
    ],
)
def test_an_override_sets_one_value(write, valid, override, path, value):
    loaded = load_recipe(write(valid), [override])
    assert flatten(loaded.resolved())[path] == value


def test_an_override_reaches_into_a_list(write, valid):
    text = valid.replace("rows.jsonl", "[{path: a}, {path: b}]")
    recipe = load_recipe(write(text), ["data.train.1.weight=2"]).recipe
    assert [source.weight for source in recipe.data.train] == [1.0, 2.0]


def test_an_override_of_a_measure_whose_name_has_a_dot(write, valid):
    name = write(valid + "eval: {every: 5}\n")
    overrides = ["train.until.eval.loss=0.5"]
    assert load_recipe(name, overrides).recipe.train.until == {"eval.loss": 0.5}
    name = write(valid + "  until: {eval.loss: 1.0}\neval: {every: 5}\n")
    assert load_recipe(name, overrides).recipe.train.until == {"eval.loss": 0.5}


def test_the_later_of_two_overrides_counts(write, valid):
    assert load_recipe(write(valid), ["seed=1", "seed=2"]).recipe.seed == 2


def test_an_override_by_null_takes_away(write, valid):
    name = write(valid + "  betas: [0.1, 0.2]\n")
    overrides = ["train.optimizer=sgd", "train.betas=null", "train.momentum=0.9"]
    assert load_recipe(name, overrides).recipe.train.momentum == 0.9


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "command line: 'train.lr' is no KEY=VALUE; write it as in train.lr=1e-4"),
        ("train.lrr=1", "command line train.lrr: unknown key; did you mean 'lr'?"),
        ("train.lr=[", "command line train.lr: a bracket, comma or '-' where a value should be"),
        ("run.x=1", "command line run.x: run is runs/a, not a map; write run=VALUE"),
        ("train.lr=!!float 3", "command line train.lr: the tag '!!float'"),
        ("train.lr={a: 1, a: 2}", "command line train.lr: the key 'a' is already at"),
    ],
)
def test_a_bad_override(write, valid, override, message):
    assert faults(write(valid), [override])[0].startswith(message)


def test_an_index_past_the_end_of_a_list(write, valid):
    name = write(valid.replace("rows.jsonl", "[{path: a}]"))
    assert faults(name, ["data.train.1.weight=2"]) == [
        "command line data.train.1.weight: data.train is a list of 1, without '1'; "
        "write an index, from 0 on, or the whole list"
    ]


# laws

RECIPES = st.fixed_dictionaries(
    {
        "run": st.text(min_size=1),
        "seed": st.integers(0),
        "method": st.fixed_dictionaries(
            {"name": st.just("sft")},
            optional={"loss": st.sampled_from(["nll", "dynamic"])},
        ),
        "data": st.fixed_dictionaries(
            {"train": st.text() | st.lists(st.fixed_dictionaries({"path": st.text()}), min_size=1)},
            optional={"eval": st.text(), "max_length": st.integers(2), "template": st.text()},
        ),
        "model": st.fixed_dictionaries(
            {"path": st.text(min_size=1)},
            optional={"lora": st.fixed_dictionaries({"r": st.integers(1)}), "revision": st.text()},
        ),
        "train": st.fixed_dictionaries(
            {"lr": st.floats(1e-300, 1e300)},
            optional={
                "betas": st.lists(st.floats(0, 0.999), min_size=2, max_size=2),
                "max_grad_norm": st.none() | st.floats(1e-9, 1e9),
                "epochs": st.integers(1, 9) | st.floats(0.1, 9),
                "warmup": st.floats(0, 1),
            },
        ),
    },
    optional={"log": st.lists(st.sampled_from(["jsonl", "tensorboard"]))},
)


@in_one_folder
@given(tree=RECIPES)
def test_what_is_resolved_and_dumped_is_loaded_as_the_equal_recipe(write, tree):
    first = load_recipe(write(dump_yaml(tree)))
    again = load_recipe(write(dump_yaml(first.resolved()), "again.yaml"))
    assert again.recipe == first.recipe
    assert again.resolved() == first.resolved()
    assert first.recipe == Recipe.model_validate(tree)


@in_one_folder
@given(tree=RECIPES, other=RECIPES, data=st.data())
def test_an_override_is_an_edit_of_the_file(write, tree, other, data):
    path = data.draw(st.sampled_from([p for p, v in flatten(other).items() if v is not None]))
    edited = {**tree}
    *sections, key = path.split(".")
    if any(part.isdecimal() for part in (*sections, key)):
        path, sections, key = "data.train", ["data"], "train"
    value, here = other, edited
    for part in sections:
        here[part] = {**here.get(part, {})}
        here, value = here[part], value[part]
    here[key] = value[key]
    override = f"{path}={dump_yaml(value[key])}"
    by_file = load_recipe(write(dump_yaml(edited), "edited.yaml")).recipe
    assert load_recipe(write(dump_yaml(tree)), [override]).recipe == by_file


def test_a_resolved_recipe_sets_nothing_that_may_not_be_set(write, valid):
    for change in ("optimizer: sgd", "schedule: constant", "optimizer: adamw"):
        tree = load_recipe(write(f"{valid}  {change}\n")).resolved()
        assert not list(faults_between_sections(Said(tree)))
    assert "momentum" not in tree["train"]
    assert list(tree) == [key for key in Recipe.model_fields if key in tree]

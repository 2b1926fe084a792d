"""Command lines of all commands: right ones, near misses, and hostile values."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st
from omegaconf import OmegaConf

from modgpt.config.compose import compose
from modgpt.config.search import groups, option_node, options, variants

Line = list[str]

# A training of a moment. Paths are relative: each line runs in a folder of its own.
TINY = (
    *("data=text", "data.path=corpus.txt", "data.batch_size=4", "output_dir=out", "sweep_dir=sweeps"),
    *("model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.block_size=8", "threads=1"),
    *("trainer.max_steps=2", "trainer.val_check_interval=1", "trainer.accelerator=cpu"),
    *("trainer.precision=32-true", "callbacks.sample.length=5"),
)
STOP = "trainer.max_time=00:00:00:03"  # for values that make a training long

BASIC = ["hydra/launcher=basic"]  # jobs in the process of the sweep: no further process starts
LONG = "a" * 300
NUMBERS = (
    *("0", "1", "-1", "2", "3", "0.5", "1e-40", "1e9", "1000000000", "10000000", "4294967296"),
    *(
        "18446744073709551616",
        "1" + "0" * 400,
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1_000",
        "0x10",
        "٣",
        "-0.0",
    ),
)
WORDS = (
    *("", "''", '""', "null", "true", "abc", "ünï", "中文", "a b", "a/b", "..", ".", "~", "???"),
    *("[]", "[1,2]", "[flash]", "{}", "{a:1}", "{_target_:int}", "[[[[]]]]", "1,2", "a,b,", ",", "a=b"),
    *(
        "${seed}",
        "${nowhere}",
        "${",
        "${oc.env:NOWHERE}",
        "$HOME",
        "'it''s'",
        '"',
        "\\",
        "%s",
        "{}{",
        "a:b",
    ),
    *(
        "range(1,4)",
        "choice(1,2)",
        "glob(*)",
        "glob(",
        "interval(0,1)",
        "shuffle(1,2)",
        "\x1b[31m",
        "a\nb",
    ),
    *("+1", "-", "--", "#", "!!python/object", "@", "@x", "a@b", "/", "//", LONG, "[" * 200),
)
PATHS = (
    *("corpus.txt", "other.txt", "empty.txt", "bytes.txt", "folder", "fifo", "/dev/zero", "/dev/null"),
    *("runs", "runs/s1", "runs/s2", "runs/s1/", "runs/s1/config.yaml", "runs/s1/checkpoints/last.ckpt"),
    *(
        "runs/s1/result.json",
        "model",
        "nowhere",
        "corpus.txt/x",
        "",
        ".",
        "/proc/self/mem",
        "ü 中",
        LONG,
    ),
    *("runs/*", "a\nb", "'", "-x", "out/new", "fifo/x", "/proc/x", "${seed}", "null"),
)
PATH_KEYS = (
    "data.path",
    "data.data_dir",
    "data.cache_dir",
    "output_dir",
    "sweep_dir",
    "resume",
    "init_from",
    "tokenizer.path",
    "tokenizer.cache_dir",
)

numbers, words, paths = (st.sampled_from(values) for values in (NUMBERS, WORDS, PATHS))


@cache
def values() -> dict[str, str]:
    """Every plain key of the default composition, with its value as written."""

    def leaves(node: object, path: str = "") -> dict[str, str]:
        if not isinstance(node, dict):
            return {path: "null" if node is None else str(node)}
        return {k: v for key, value in node.items() for k, v in leaves(value, f"{path}.{key}").items()}

    trees = [compose(["data=text", f"tokenizer={kind}"]) for kind in ("bpe", "saved")]
    every = [leaves(OmegaConf.to_container(tree, resolve=False)) for tree in trees]
    found = {key.lstrip("."): value for some in every for key, value in some.items()}
    return {key: value for key, value in found.items() if "_target_" not in key and key != "job_folder"}


@cache
def choices() -> list[str]:
    """Every `group=option`, but for what asks the network: a corpus, and the trackers."""
    found = [f"{g}={o}" for g in groups() for o in (*options(g), *variants(g)) if g != "sweep"]
    online = {
        "data=shakespeare",
        *(f"data={o}" for o in options("data") if "named" in option_node("data", o)["_target_"]),
        *(f"logger={name}" for name in ("wandb", "mlflow", "trackio", "comet")),
    }
    return [choice for choice in found if choice not in online]


@st.composite
def misspelt(draw: st.DrawFn, text: str) -> str:
    """A word with one character left out, doubled or replaced."""
    place = draw(st.integers(0, max(0, len(text) - 1)))
    instead = draw(st.sampled_from(["", text[place : place + 1] * 2, "x", "é", ".", "=", " ", "'"]))
    return text[:place] + instead + text[place + 1 :]


@st.composite
def setting(draw: st.DrawFn) -> str:
    """`key=value`: a key there is, with any value."""
    key = draw(st.sampled_from(sorted(values())))
    likely = paths if key in PATH_KEYS else st.just(values()[key])
    value = draw(st.one_of(numbers, words, likely, paths if key in PATH_KEYS else numbers))
    return f"{key}={value}"


@st.composite
def override(draw: st.DrawFn) -> str:
    """One override: an option, a setting, a deletion, an addition, a near miss, or anything."""
    choice = st.sampled_from(choices())
    group = st.sampled_from(groups())
    return draw(
        st.one_of(
            choice,
            choice,
            setting(),
            setting(),
            setting(),
            choice.flatmap(misspelt),
            setting().flatmap(misspelt),
            setting().map(lambda text: f"+{text}"),
            setting().map(lambda text: f"~{text.partition('=')[0]}"),
            group.map(lambda name: f"~{name}"),
            st.tuples(group, words).map("=".join),
            st.tuples(group, words).map(lambda pair: f"{pair[0]}.{pair[1]}=1"),
            st.tuples(
                st.sampled_from(["norm@attention.qk_norm", "norm@model.embedding_norm", "ffn@ffn"]),
                st.sampled_from(["rmsnorm", "layernorm", "none", "null", "x"]),
            ).map("=".join),
            st.sampled_from([f"callbacks.{c}=null" for c in ("best", "last", "progress", "sample")]),
            st.sampled_from(
                [
                    "logger.csv=null",
                    "logger.tensorboard=null",
                    "logger=[csv,none]",
                    "logger=[csv,x]",
                    "logger=[default,csv]",
                    "callbacks=[early_stopping,learning_rate]",
                    "callbacks=[default,[none]]",
                    "hydra.run.dir=x",
                    "hydra.mode=MULTIRUN",
                    "hydra.verbose=true",
                    "hydra.job.name=null",
                    "hydra/job_logging=default",
                    "hydra/launcher=basic",
                    "hydra/sweeper=basic",
                    "hydra.searchpath=[folder]",
                ]
            ),
            words,
        )
    )


FLAGS = (
    ["--resolved"],
    ["dry_run=true"],
    ["--cfg", "job"],
    ["--cfg", "hydra"],
    ["--cfg", "all"],
    ["--cfg", "x"],
    ["--cfg", "job", "--package", "ffn"],
    ["--cfg", "job", "--package", "nowhere"],
    ["--cfg", "job", "--resolve"],
    ["--help"],
    ["--help", "ffn"],
    ["--help", "fnn"],
    ["--hydra-help"],
    ["--info"],
    ["--info", "searchpath"],
    ["--info", "defaults"],
    ["--info", "x"],
    ["--shell-completion", "install=bash"],
    ["--shell-completion", "x"],
    ["--trust", "nowhere"],
    ["--trust", "a b"],
    ["--config-dir", "folder"],
    ["--config-dir", "nowhere"],
    ["--config-name", "x"],
    ["--config-path", "x"],
    ["--experimental-rerun", "x"],
    ["--version"],
    ["--bogus"],
    ["-x"],
    ["--cfg"],
    ["--trust"],
    ["--resolve"],
)


@st.composite
def training(draw: st.DrawFn) -> Line:
    """`modgpt train` with up to three changes to a tiny training."""
    most = draw(st.sampled_from([1, 1, 1, 2, 3]))  # the first mistake hides the others
    given = draw(st.lists(override(), min_size=1, max_size=most, unique=True))
    flags = draw(st.one_of(st.just([]), st.just([]), st.just([]), st.sampled_from(FLAGS)))
    stop = [] if any("max_time" in text for text in given) else [STOP]
    if not stop:
        given = [text for text in given if "max_steps" not in text]
    return ["train", *TINY, *stop, *given, *flags]


@st.composite
def sweep(draw: st.DrawFn) -> Line:
    """`modgpt train -m`, mostly only planned: a training starts further processes."""
    option = st.sampled_from(["attention", "ffn", "norm", "pos"]).flatmap(
        lambda group: st.lists(st.sampled_from(options(group)), min_size=1, max_size=2).map(
            lambda names: f"{group}={','.join(names)}"
        )
    )
    several = st.one_of(
        option,
        st.sampled_from(
            [
                "seed=1,2",
                "seed=glob(*)",
                "norm=glob(*)",
                "pos=glob(a*)",
                "pos=glob(x)",
                "seed=range(1,3)",
                "seed=range(1,1)",
                "sweep=pos",
                "sweep=pos,ffn",
                "sweep=x",
                "optimizer.lr=1e-3,x",
                "seed=1,1",
                "model.n_heads=2,3",
                "model.n_heads=3,5",
                "sweep_name=a/b",
                f"sweep_name={LONG}",
                "seed=-1,-2",
                "hydra.sweeper.design=one_at_a_time",
                "hydra.sweeper.design=x",
                "hydra.sweep.dir=x",
                "sweep_name=mine",
                "hydra.launcher.n_jobs=0",
                "hydra.sweeper.params.seed=1",
                "resume=runs/s1",
                "seed='1,2'",
            ]
        ),
        override(),
    )
    given = draw(st.lists(several, min_size=1, max_size=3, unique=True))
    flags = draw(st.sampled_from([["-m"], ["-m"], ["-m"], ["--multirun"], []]))
    more = draw(st.one_of(st.just([]), st.just([]), st.just([]), st.sampled_from(FLAGS)))
    end = draw(st.sampled_from([[*BASIC, "dry_run=true"]] * 7 + [["dry_run=true"], BASIC]))
    stop = [] if any("max_time" in text for text in given) else [STOP]
    return ["train", *TINY, *stop, *given, *end, *flags, *more]


def flag(name: str, value: st.SearchStrategy[str]) -> st.SearchStrategy[Line]:
    return value.map(lambda text: [name, text])


def flags(*among: st.SearchStrategy[Line]) -> st.SearchStrategy[Line]:
    """Up to three of some flags, one after the other."""
    return st.lists(st.one_of(*among), max_size=3).map(
        lambda lists: [text for few in lists for text in few]
    )


some_run = st.one_of(st.just("runs/s1"), st.just("runs/s1"), st.just("runs/s1"), paths)
device = flag(
    "--device", st.sampled_from(["cpu", "auto", "cuda", "mps", "meta", "x", "", "cuda:99", "cpu:1"])
)
trust = flag("--trust", st.sampled_from(["nowhere", "a b", "", "os", "modgpt"]))
odd = st.sampled_from([["--help"], ["-h"], ["--bogus"], ["--run"], ["x"], ["--", "x"], ["--out"]])

generate = st.tuples(
    flag("--run", some_run),
    flags(
        flag("--prompt", st.one_of(words, st.just("to be"), st.just("中"))),
        flag("--temperature", numbers),
        flag("--top-k", numbers),
        flag("--top-p", numbers),
        flag("--max-new-tokens", numbers),
        flag("--num-samples", st.sampled_from(["0", "2", "-1", "x"])),
        flag("--seed", numbers),
        flag("--context", numbers),
        st.just(["-i"]),
        flag("--on-unknown", st.sampled_from(["error", "skip", "x"])),
        device,
        trust,
        odd,
        flag("--checkpoint", paths),
    ),
    st.just(["--max-new-tokens", "4"]) | st.just([]),
).map(lambda parts: ["generate", *parts[0], *parts[1], *parts[2]])

evaluate = st.tuples(
    flag("--run", some_run),
    flags(
        flag("--lengths", numbers),
        st.just(["--lengths", "4", "8"]),
        st.just(["--sliding"]),
        trust,
        odd,
        flag("--stride", numbers),
        flag("--out", paths),
        device,
        flag("--run", paths),
    ),
    st.just(["--lengths", "4"]) | st.just([]),
).map(lambda parts: ["evaluate", *parts[0], *parts[2], *parts[1]])

export_run = st.tuples(
    flag("--run", some_run), flag("--out", paths | st.just("exported")), flags(trust, odd, device)
).map(lambda parts: ["export", *parts[0], *parts[1], *parts[2]])

import_model = st.tuples(
    flag("--source", paths | st.just("model")), flags(flag("--out", paths), odd)
).map(lambda parts: ["import", *parts[0], *parts[1]])

compare = st.tuples(
    st.lists(st.one_of(st.just("runs"), paths), min_size=1, max_size=2),
    flags(
        flag("--out", paths),
        flag("--figures", st.sampled_from(["png", "svg", "x"])),
        odd,
        flag("--best", st.one_of(st.sampled_from(["optimizer.lr", "seed", "ffn", "status"]), words)),
    ),
).map(lambda parts: ["compare", *parts[0], *parts[1]])

conditions = st.sampled_from(
    [
        "ffn='moe'",
        "final_val_loss < 2 and status='finished'",
        "optimizer.lr > 0",
        "nowhere = 1",
        "1); drop table runs; --",
        "true -- x",
        "'",
        "true",
    ]
)
selects = st.sampled_from(
    [
        "select * from runs",
        "select ffn, count(*) from runs group by ffn",
        "summarize runs",
        "select * from read_text('corpus.txt')",
        "copy runs to 'written.csv'",
        "attach 'written.db'",
        "install httpfs",
        "set enable_external_access=true",
        "select 1; select 2",
        "drop table runs",
        "selec",
        "select chr(27)",
    ]
)
query = st.tuples(
    st.lists(st.one_of(st.just("runs"), paths), max_size=2),
    flags(
        flag("--where", conditions | words),
        flag("--columns", st.sampled_from(["run", "*", "run, ffn", "", "1", "x"]) | words),
        flag("--sort", st.sampled_from(["wall_seconds desc", "1", "nowhere"]) | words),
        flag("--limit", numbers),
        flag("--sql", selects | words),
        st.just(["--csv"]),
        odd,
    ),
).map(lambda parts: ["query", *parts[0], *parts[1]])

alone = st.sampled_from(
    [
        [],
        ["--help"],
        ["-h"],
        ["trian"],
        [""],
        ["train", "--help"],
        ["--version"],
        ["train", "-m", "--help", "pos"],
    ]
)

lines: st.SearchStrategy[Line] = st.one_of(
    training(),
    training(),
    training(),
    training(),
    sweep(),
    sweep(),
    generate,
    evaluate,
    export_run,
    import_model,
    compare,
    query,
    alone,
)

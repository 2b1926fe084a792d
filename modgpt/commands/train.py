"""The command line of training: compose, train, and tell mistakes in one line."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from pathlib import Path

# Lets Hydra's errors reach us, instead of being printed over several lines with exit code 1.
os.environ["HYDRA_FULL_ERROR"] = "1"

import hydra
from hydra._internal.utils import get_args_parser  # the one that hydra.main itself uses
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modgpt.config.compose import (
    CONFIG_DIR,
    PARTS,
    RUN_KEYS,
    Job,
    assignment,
    check_overrides,
    explain,
    make_job,
    parse,
)
from modgpt.errors import TrainingError, UserError
from modgpt.runs.record import read_result

USER_ERROR = 2
# Overrides by which a model is composed: an experiment may choose its parts.
MODEL_KEYS = (*PARTS, "model", "experiment")


def main(argv: list[str] | None = None) -> int:
    """Run `modgpt train`; returns its exit code: 0, 2 for a mistake, 128 + n for signal n."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("modgpt").setLevel(logging.INFO)
    sys.argv[1:] = sys.argv[1:] if argv is None else argv
    code = 0

    def run(config: DictConfig) -> None:
        # A job tells its own mistakes: through Hydra they would come with its traceback, and the other
        # jobs of a multirun would not run.
        nonlocal code
        try:
            code = max(code, run_job(config))
        except UserError as error:
            code = fail(error)

    overrides: list[str] = []
    try:
        sys.argv[1:] = with_saved_overrides(sys.argv[1:])
        overrides = override_arguments(sys.argv[1:])
        check_overrides(overrides)
        hydra.main(config_path=str(CONFIG_DIR), config_name="train", version_base="1.3")(run)()
    except UserError as error:
        return fail(error)
    except (HydraException, OmegaConfBaseException) as error:
        return fail(explain(error, overrides))
    except KeyboardInterrupt:  # before the training began, or after it was done
        return 128 + signal.SIGINT
    return code


def fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return USER_ERROR


def run_job(config: DictConfig) -> int:
    """Train one composed job and print its summary; the exit code."""
    composed = HydraConfig.get()
    chosen = OmegaConf.to_container(composed.runtime.choices)
    job = make_job(config, chosen, composed.overrides.task)
    # Only now: what is wrong with the composition has been told without waiting for torch.
    from modgpt.runs.session import Interrupted, Session
    from modgpt.training.distributed import is_leader
    from modgpt.training.loop import train
    from modgpt.training.summary import print_summary

    if config.job_folder is not None:
        return run_job_of_sweep(job)
    try:
        with Session(is_leader()) as session:
            outcome = train(job, session)
            sample = outcome.data.sample(outcome.module.model, max_new_tokens=200, seed=config.seed)
            print_summary(outcome.folder, outcome.result, sample)
    except Interrupted as stop:
        print(stop.advice(), file=sys.stderr)
        sys.exit(128 + stop.signum)  # leaves a multirun too, and does not start its next job
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_job_of_sweep(job: Job) -> int:
    """Train a job that a sweep has planned, in its own folder; the exit code.

    It runs in whatever process a launcher of Hydra's has made for it, or is one of several processes of
    one job, of which the first claims the folder.
    """
    from modgpt.sweep.requeue import attempt_queued, follow
    from modgpt.training.distributed import is_leader

    folder = Path(job.config.job_folder)
    job.config.job_folder = None  # its folder is no part of a job: all launchers run the same one
    return attempt_queued(job, folder) if is_leader() else follow(job, folder)


def override_arguments(arguments: list[str]) -> list[str]:
    """The overrides among the arguments of the command line; the rest are Hydra's own flags."""
    return get_args_parser().parse_args(arguments).overrides


def with_saved_overrides(arguments: list[str]) -> list[str]:
    """With `resume=FOLDER`: the run's saved overrides first, then those given now.

    Threads, precision and compiling were decided when the run began; to end with the same weights they
    stay, unless given anew. With `init_from=FOLDER`: those that make its architecture and tokenizer.

    Raises:
        UserError: the folder is not one of a run.
    """
    given = override_arguments(arguments)
    keys = {key_of(a): a for a in given}
    if "resume" in keys:
        result = read_result(Path(str(parse([keys["resume"]])[0].value())))
        saved = [
            f"threads={result['threads']}",
            f"trainer.precision={result['precision']}",
            f"compile={result.get('compiled', False)}",
            *result["overrides"],
        ]
    elif "init_from" in keys:
        saved = overrides_of_model(Path(str(parse([keys["init_from"]])[0].value())))
    else:
        return arguments
    saved = {key_of(s): s for s in saved}
    kept = [s for key, s in saved.items() if key not in keys and key not in RUN_KEYS]
    flags = [a for a in arguments if a not in given]
    return [*flags, *kept, *given]


def overrides_of_model(folder: Path) -> list[str]:
    """The overrides that compose the model of a run anew, with its tokenizer.

    Raises:
        UserError: the folder is not one of a run.
    """
    result = read_result(folder)
    config = OmegaConf.load(folder / "config.yaml")
    kept = [o for o in result["overrides"] if re.split("[.@]", key_of(o))[0] in MODEL_KEYS]
    hidden = config.ffn.get("hidden")  # perhaps not asked for, but matched
    return [
        *([] if hidden is None else [f"ffn.hidden={hidden}"]),
        *kept,
        "match=none",
        f"model.vocab_size={config.model.vocab_size}",
        "tokenizer=saved",
        assignment("tokenizer.path", (folder / "tokenizer.json").resolve()),
    ]


def key_of(override: str) -> str:
    """What an override is about: its group with the package, or its key."""
    return parse([override])[0].get_key_element().lstrip("+~")


if __name__ == "__main__":  # the processes of further devices start here
    sys.exit(main())

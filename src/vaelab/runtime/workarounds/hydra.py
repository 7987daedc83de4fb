"""Access to parts of Hydra that are not public: its command line and the results of its jobs."""

from argparse import ArgumentParser
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.utils import JobReturn, JobStatus


def arguments_parser() -> ArgumentParser:
    """The parser of Hydra's command line.

    This project checks the command line before Hydra starts, and prints ``--help`` without the list of all groups.
    Hydra has no public function for its parser.
    """
    return get_args_parser()


def result_of(job: JobReturn) -> Any:
    """The return value of a job, or the exception that ended it."""
    return job._return_value


def _raise_quietly(job: JobReturn) -> Any:
    if job.status is JobStatus.FAILED:
        raise result_of(job)
    return result_of(job)


def raise_job_errors_quietly() -> None:
    """Lets ``JobReturn.return_value`` raise the error of a job without a line of its own.

    Hydra's property logs "Error executing job with overrides: ..." before it raises: a second line about one error.
    """
    JobReturn.return_value = JobReturn.return_value.getter(_raise_quietly)  # type: ignore[method-assign, attr-defined]

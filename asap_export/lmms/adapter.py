"""The class that lmms-eval loads; imported by lmms-eval alone, since its base class is lmms-eval's."""

from typing import Any

from lmms_eval.api.model import lmms
from tqdm import tqdm

from asap_export.errors import UserError
from asap_export.lmms.requests import answer, model_arguments, request_of
from asap_export.runtime.model import load

__all__ = ["AsapExport"]


class AsapExport(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """A bundle that answers lmms-eval's requests one by one; see ``model_arguments`` for what it takes."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        arguments = model_arguments(given)
        self.budget = arguments.budget
        self.model = load(arguments.bundle, arguments.provider, arguments.threads)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """An answer to each request, in order."""
        answers = []
        for request in tqdm(requests, desc="Model Responding", disable=self.rank != 0):
            question = request_of(request.args, self.task_dict)
            text = answer(self.model, question, self.budget)
            self.cache_hook.add_partial("generate_until", (question.text, question.settings), text)
            answers.append(text)
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refused: a bundle's decoder gives the logits of the last position only."""
        raise UserError(
            "expected tasks whose output_type is generate_until, found loglikelihood: a bundle gives logits of "
            "the last position only; choose the generating form of the task"
        )

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refused: questions are asked one by one."""
        raise UserError(
            "expected tasks whose output_type is generate_until, found generate_until_multi_round; choose another"
        )
